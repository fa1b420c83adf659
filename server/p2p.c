/* Volumes that one worker sends to another. Off unless an interface is named; targets are the
 * networks of that interface, and those that an option names. A user of libcurl. */
#include "server/p2p.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/parse.h"
#include "base/strv.h"
#include "server/chunks.h"
#include "server/json.h"
#include "server/request.h"
#include "server/router.h"
#include "server/sock.h"
#include "server/volume_json.h"
#include "volumes/volumes.h"

#define KEEP_ALIVE_MS 30000
#define CONNECT_MS 10000L
#define ANSWER_BYTES 65536
#define DRAIN_MS 10000

static const char failed[] = "failed to stream p2p out from volume";

/* ---- addresses ------------------------------------------------------------------------------- */

struct network {
	int family;
	unsigned char address[16];
	unsigned prefix_bits;
};

static const void *address_of(const struct sockaddr *at)
{
	if (at->sa_family == AF_INET)
		return &((const struct sockaddr_in *)(const void *)at)->sin_addr;
	if (at->sa_family == AF_INET6)
		return &((const struct sockaddr_in6 *)(const void *)at)->sin6_addr;
	return NULL;
}

static bool is_within(const struct network *network, const struct sockaddr *at)
{
	const unsigned char *address = address_of(at);

	if (!address || at->sa_family != network->family)
		return false;
	for (unsigned bit = 0; bit < network->prefix_bits; bit++)
		if ((address[bit / 8] ^ network->address[bit / 8]) & (0x80 >> bit % 8))
			return false;
	return true;
}

static unsigned count_bits(const unsigned char *mask, unsigned n_bytes)
{
	unsigned n = 0;

	while (n < 8 * n_bytes && mask[n / 8] & (0x80 >> n % 8))
		n++;
	return n;
}

/* "10.0.0.0/8", "fd00::/8", or one address. */
static int parse_network(const char *text, struct network *ret)
{
	char address[INET6_ADDRSTRLEN];
	size_t len = strcspn(text, "/");
	uint64_t bits, most;

	if (len >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, len);
	address[len] = '\0';
	ret->family = strchr(address, ':') ? AF_INET6 : AF_INET;
	most = ret->family == AF_INET6 ? 128 : 32;
	bits = most;
	if (inet_pton(ret->family, address, ret->address) != 1 ||
		(text[len] && parse_u64(text + len + 1, most, &bits) < 0))
		return -EINVAL;
	ret->prefix_bits = (unsigned)bits;
	return 0;
}

int p2p_check(const struct p2p_config *config, struct err *err)
{
	struct network network;
	regex_t pattern;

	if (regcomp(&pattern, config->interface_pattern, REG_EXTENDED | REG_NOSUB))
		return err_set(err, ERR_INVALID, EINVAL,
			"--baggageclaim-p2p-interface-name-pattern '%.100s': not a regular expression",
			config->interface_pattern);
	regfree(&pattern);
	if (config->family != 4 && config->family != 6)
		return err_set(err, ERR_INVALID, EINVAL,
			"--baggageclaim-p2p-interface-family: expected 4 or 6");
	for (size_t i = 0; i < config->targets->n_items; i++)
		if (parse_network(config->targets->items[i], &network) < 0)
			return err_set(err, ERR_INVALID, EINVAL,
				"--baggageclaim-p2p-target '%.100s': expected ADDRESS or ADDRESS/BITS",
				config->targets->items[i]);
	return 0;
}

static bool is_link_local(const struct sockaddr *at)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)at;

	return at->sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr);
}

/* The first of the interfaces in the kernel's order; NULL if none fits. */
static const struct ifaddrs *choose(const struct p2p_config *config, const struct ifaddrs *all)
{
	int family = config->family == 6 ? AF_INET6 : AF_INET;
	const struct ifaddrs *found = NULL;
	regex_t pattern;

	if (!*config->interface_pattern ||
		regcomp(&pattern, config->interface_pattern, REG_EXTENDED | REG_NOSUB))
		return NULL;
	for (const struct ifaddrs *one = all; one; one = one->ifa_next)
		if (one->ifa_addr && one->ifa_netmask && one->ifa_addr->sa_family == family &&
			!is_link_local(one->ifa_addr) &&
			!regexec(&pattern, one->ifa_name, 0, NULL, 0) &&
			(!found || if_nametoindex(one->ifa_name) < if_nametoindex(found->ifa_name)))
			found = one;
	regfree(&pattern);
	return found;
}

void handle_p2p_url(struct request *request)
{
	const struct p2p_config *config = request_p2p(request);
	const char *port = strrchr(request_own_address(request), ':') + 1;
	struct ifaddrs *all = NULL;
	const struct ifaddrs *one;
	char address[INET6_ADDRSTRLEN], url[96];
	bool is_v6 = config->family == 6;

	if (getifaddrs(&all) < 0) {
		reply_failure(
			request, 500, "failed to get a list of the system's network interface");
		return;
	}
	one = choose(config, all);
	if (one &&
		inet_ntop(one->ifa_addr->sa_family, address_of(one->ifa_addr), address,
			sizeof(address))) {
		snprintf(url, sizeof(url), "http://%s%s%s:%s", is_v6 ? "[" : "", address,
			is_v6 ? "]" : "", port);
		reply_text(request, 200, url);
	} else {
		reply_failure(
			request, 500, "failed to get p2p url, network interface list is empty");
	}
	freeifaddrs(all);
}

static bool is_neighbour(const struct p2p_config *config, const struct sockaddr *at)
{
	struct ifaddrs *all = NULL;
	const struct ifaddrs *one;
	struct network network = { 0 };
	unsigned n_bytes;

	if (getifaddrs(&all) < 0)
		return false;
	one = choose(config, all);
	if (one) {
		network.family = one->ifa_addr->sa_family;
		n_bytes = network.family == AF_INET6 ? 16 : 4;
		memcpy(network.address, address_of(one->ifa_addr), n_bytes);
		network.prefix_bits = count_bits(address_of(one->ifa_netmask), n_bytes);
	}
	freeifaddrs(all);
	return one && is_within(&network, at);
}

/* Of what the name has become: it cannot become another in between. */
static bool is_allowed(const struct p2p_config *config, const struct sockaddr *at)
{
	struct network network;

	for (size_t i = 0; i < config->targets->n_items; i++)
		if (parse_network(config->targets->items[i], &network) == 0 &&
			is_within(&network, at))
			return true;
	return is_neighbour(config, at);
}

/* ---- one transfer ---------------------------------------------------------------------------- */

struct transfer {
	struct request *request;
	struct volume_stream *stream; /* NULL once it has ended */
	CURL *easy;
	CURLM *multi;
	struct curl_slist *headers;
	struct buf answer;
	bool is_paused, is_refused; /* refused: the address is none of those that may be */
	struct err err; /* of the stream */
	char curl_text[CURL_ERROR_SIZE];
};

static size_t on_read(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *transfer = arg;
	ssize_t got;

	if (!transfer->stream)
		return transfer->err.kind == ERR_NONE ? 0 : CURL_READFUNC_ABORT;
	got = read(volume_stream_fd(transfer->stream), data, size * n);
	if (got > 0)
		return (size_t)got;
	if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
		transfer->is_paused = true;
		return CURL_READFUNC_PAUSE;
	}
	got = volume_stream_end(TAKE_PTR(transfer->stream), false, &transfer->err);
	return got < 0 ? CURL_READFUNC_ABORT : 0;
}

static size_t on_write(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *transfer = arg;

	buf_add(&transfer->answer, data, size * n); /* what is too long is no document of ours */
	return size * n;
}

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *at)
{
	struct transfer *transfer = arg;

	(void)purpose;
	if (!is_allowed(request_p2p(transfer->request), &at->addr)) {
		transfer->is_refused = true;
		return CURL_SOCKET_BAD;
	}
	return socket(at->family, at->socktype | SOCK_CLOEXEC, at->protocol);
}

static void begin_curl(void)
{
	curl_global_init(CURL_GLOBAL_NOTHING);
}

static int prepare(struct transfer *transfer, const char *url, const char *encoding)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	char header[64];

	pthread_once(&once, begin_curl);
	transfer->easy = curl_easy_init();
	if (!transfer->easy)
		return -ELIBACC;
	snprintf(header, sizeof(header), "Content-Encoding: %s", encoding);
	transfer->headers = curl_slist_append(NULL, header);
	if (transfer->headers)
		curl_slist_append(transfer->headers, "Expect:");
	transfer->multi = curl_multi_init();
	if (!transfer->headers || !transfer->multi)
		return -ENOMEM;
	curl_easy_setopt(transfer->easy, CURLOPT_URL, url);
	curl_easy_setopt(transfer->easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(transfer->easy, CURLOPT_PROXY, "");
	curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(transfer->easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(transfer->easy, CURLOPT_UPLOAD_BUFFERSIZE, 262144L);
	curl_easy_setopt(transfer->easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers);
	curl_easy_setopt(transfer->easy, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(transfer->easy, CURLOPT_READDATA, transfer);
	curl_easy_setopt(transfer->easy, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(transfer->easy, CURLOPT_WRITEDATA, transfer);
	curl_easy_setopt(transfer->easy, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	curl_easy_setopt(transfer->easy, CURLOPT_OPENSOCKETDATA, transfer);
	curl_easy_setopt(transfer->easy, CURLOPT_ERRORBUFFER, transfer->curl_text);
	return curl_multi_add_handle(transfer->multi, transfer->easy) ? -ENOMEM : 0;
}

static void transfer_done(struct transfer *transfer)
{
	struct err ignored;

	if (transfer->multi && transfer->easy)
		curl_multi_remove_handle(transfer->multi, transfer->easy);
	curl_easy_cleanup(transfer->easy);
	curl_multi_cleanup(transfer->multi);
	curl_slist_free_all(transfer->headers);
	buf_done(&transfer->answer);
	if (transfer->stream)
		volume_stream_end(transfer->stream, true, &ignored);
}

static int send_text(struct request *request, const char *text)
{
	return chunks_add(request, text, strlen(text));
}

/* Until something happens: to the peer, in the pipe, or to the client, who gets a line now and
 * then. -ECANCELED: it has gone, or we stop. */
static int wait_a_while(struct transfer *transfer, int64_t *next_ms)
{
	const struct request *request = transfer->request;
	struct curl_waitfd fds[] = { { .fd = request->fd, .events = CURL_WAIT_POLLIN },
		{ .fd = request_stop_fd(request), .events = CURL_WAIT_POLLIN },
		{ .fd = transfer->is_paused ? volume_stream_fd(transfer->stream) : -1,
			.events = CURL_WAIT_POLLIN } };
	int64_t left_ms = *next_ms - clock_ms();

	curl_multi_poll(transfer->multi, fds, transfer->is_paused ? 3 : 2,
		left_ms > 0 ? (int)left_ms : 0, NULL);
	if (fds[0].revents || fds[1].revents)
		return -ECANCELED;
	if (transfer->is_paused && fds[2].revents) {
		transfer->is_paused = false;
		curl_easy_pause(transfer->easy, CURLPAUSE_CONT);
	}
	if (clock_ms() < *next_ms)
		return 0;
	*next_ms = clock_ms() + KEEP_ALIVE_MS;
	return send_text(transfer->request, "\n");
}

/* CURLE_OK, its error, or -ECANCELED. */
static int run(struct transfer *transfer)
{
	int64_t next_ms = clock_ms() + KEEP_ALIVE_MS;
	int n_running = 1, n_left, r = 0;
	const CURLMsg *end;

	while (r == 0) {
		if (curl_multi_perform(transfer->multi, &n_running))
			return CURLE_FAILED_INIT;
		if (!n_running)
			break;
		r = wait_a_while(transfer, &next_ms);
	}
	if (r < 0)
		return r;
	end = curl_multi_info_read(transfer->multi, &n_left);
	return end ? (int)end->data.result : CURLE_FAILED_INIT;
}

/* ---- what came of it ------------------------------------------------------------------------- */

/* The peer's own words, if it is one of us. */
static void explain_answer(struct transfer *transfer, long status, char *text, size_t n_bytes)
{
	AUTO_JSON json_t *json = NULL;
	AUTO_FREE char *message = NULL;
	struct err ignored;

	if (json_parse_first(buf_str(&transfer->answer), transfer->answer.len, &json, &ignored) ==
			0 &&
		json_is_object(json))
		json_string_field(json, "", "error", &message, &ignored);
	snprintf(text, n_bytes, "p2p-stream-in %ld%s%.300s", status, message ? ": " : "",
		message ? message : "");
}

static void explain(
	struct transfer *transfer, int code, const char *url, char *text, size_t n_bytes)
{
	long status = 0;

	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	if (transfer->err.kind != ERR_NONE)
		snprintf(text, n_bytes, "Put \"%.150s\": failed to compress source volume: %.200s",
			url, transfer->err.msg);
	else if (transfer->is_refused)
		snprintf(text, n_bytes, "Put \"%.150s\": not in a network that streams may go to",
			url);
	else if (status && status != 204)
		explain_answer(transfer, status, text, n_bytes);
	else
		snprintf(text, n_bytes, "Put \"%.150s\": %.200s", url,
			*transfer->curl_text ? transfer->curl_text : curl_easy_strerror(code));
}

/* The path may not be there: that is known when the helper has ended without a byte. */
static int await_first_byte(struct transfer *transfer, const char *path)
{
	int fd = volume_stream_fd(transfer->stream), n_bytes = 0;
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN },
		{ .fd = request_stop_fd(transfer->request), .events = POLLIN } };
	struct err err = { 0 };
	int r;

	while (poll(fds, N_ELEMENTS(fds), -1) < 0)
		continue;
	if (fds[1].revents)
		return -ECANCELED;
	if (ioctl(fd, FIONREAD, &n_bytes) == 0 && n_bytes > 0)
		return fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
	r = volume_stream_end(TAKE_PTR(transfer->stream), false, &err);
	if (r == -ENOENT)
		return err_set(&transfer->err, ERR_NOT_FOUND, ENOENT,
			"stat %.150s: no such file or directory", path);
	transfer->err = err;
	return r < 0 ? r : err_set(&transfer->err, ERR_SYSTEM, EIO, "nothing came");
}

/* 0: "ok"; else what went wrong is in text; -ECANCELED: nobody is there to hear it. */
static int stream(struct transfer *transfer, char *text, size_t n_bytes)
{
	struct request *request = transfer->request;
	const char *url = request_query(request, "streamInURL"),
		   *path = request_query(request, "path"),
		   *encoding = request_query(request, "encoding");
	struct err err = { 0 };
	long status = 0;
	int r;

	if (!volume_encoding_is_known(encoding)) {
		snprintf(text, n_bytes, "Put \"%.150s\": unsupported stream encoding", url);
		return -EINVAL;
	}
	r = volume_stream_out(request_volumes(request), request_param(request, "handle"), path,
		encoding, &transfer->stream, &err);
	if (r < 0) {
		snprintf(text, n_bytes, "%.300s", r == -ENOENT ? "volume does not exist" : err.msg);
		return r;
	}
	r = await_first_byte(transfer, path);
	if (r == 0)
		r = prepare(transfer, url, encoding);
	if (r == 0)
		r = run(transfer);
	if (r == -ECANCELED)
		return r;
	if (transfer->easy)
		curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	if (r == CURLE_OK && status == 204)
		return 0;
	explain(transfer, r, url, text, n_bytes);
	return -EIO;
}

static bool is_given(const struct request *request, const char *name)
{
	const char *value = request_query(request, name);

	return value && *value;
}

void handle_volume_stream_p2p_out(struct request *request)
{
	struct transfer transfer = { .request = request };
	char text[768], line[sizeof(text) + 64];
	int r;

	if (!is_given(request, "path") || !is_given(request, "streamInURL") ||
		!is_given(request, "encoding")) {
		reply_failure(request, 400, failed);
		return;
	}
	buf_init(&transfer.answer, ANSWER_BYTES);
	r = chunks_begin(request, "plain/text", "X-Content-Type-Options: nosniff\r\n");
	if (r == 0)
		r = stream(&transfer, text, sizeof(text));
	else
		r = -ECANCELED;
	transfer_done(&transfer);
	if (r == -ECANCELED)
		return;
	snprintf(line, sizeof(line), "%s: %s", failed, text);
	if (send_text(request, r == 0 ? "ok" : line) == 0)
		chunks_end(request, "");
	sock_finish(request->fd, DRAIN_MS, request_stop_fd(request));
}
