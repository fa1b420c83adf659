/* Handlers of ports and rules. */
#include <errno.h>

#include "backend.h"
#include "base/auto.h"
#include "base/err.h"
#include "net_rule.h"
#include "server/json.h"
#include "server/net_json.h"
#include "server/request.h"
#include "server/router.h"

void handle_net_in(struct request *request)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	AUTO_JSON json_t *json = NULL;
	struct net_port port;
	struct err err;
	int r;

	if (!container || request_json(request, &json, &err) < 0)
		return;
	r = net_in_parse(json, "", &port, &err);
	if (r == 0)
		r = container_net_in(container, &port, &port, &err);
	if (r < 0)
		reply_error(request, &err);
	else
		reply_json(request, 200,
			json_pack("{s:i, s:i}", "host_port", port.host, "container_port",
				port.container));
}

static void open_rules(struct request *request, bool is_list)
{
	struct container *container AUTO_CONTAINER = request_container(request);
	struct net_rule *rules = NULL;
	AUTO_JSON json_t *json = NULL;
	size_t n_rules = 0;
	struct err err;
	int r;

	if (!container)
		return;
	r = json_parse(request->body ? request->body : "", request->body_bytes, &json, &err);
	if (r == 0 && is_list != (bool)json_is_array(json))
		r = err_set(&err, ERR_INVALID, EINVAL, "body: expected %s",
			is_list ? "a list of rules" : "a rule");
	if (r == 0)
		r = net_out_parse(json, "", &rules, &n_rules, &err);
	if (r == 0)
		r = container_net_out(container, rules, n_rules, &err);
	net_rules_free(rules, n_rules);
	if (r < 0)
		reply_error(request, &err);
	else
		reply_empty(request);
}

void handle_net_out(struct request *request)
{
	open_rules(request, false);
}

void handle_net_out_bulk(struct request *request)
{
	open_rules(request, true);
}
