#include "server/worker/local_api.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/strv.h"

#define MAX_ANSWER_BYTES (256 << 20)
#define WORDS_BYTES 256 /* of an answer that says what is wrong */

struct local_api {
	char *base;
	int64_t timeout_ms;
	CURL *easy;
};

/* If it fails, so does curl_easy_init. */
static void prepare(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* libcurl's own would be inherited by what is started meanwhile. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *at)
{
	(void)arg;
	(void)purpose;
	return socket(at->family, at->socktype | SOCK_CLOEXEC, at->protocol);
}

static CURL *new_easy(int64_t timeout_ms)
{
	CURL *easy = curl_easy_init();

	if (!easy)
		return NULL;
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* whatever the environment says */
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	return easy;
}

struct local_api *local_api_new(const char *at, int64_t timeout_ms)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct local_api *api = calloc(1, sizeof(*api));

	if (!api)
		return NULL;
	pthread_once(&once, prepare);
	api->timeout_ms = timeout_ms;
	api->easy = new_easy(timeout_ms);
	if (!api->easy || asprintf(&api->base, "http://%s", at) < 0) {
		api->base = NULL;
		local_api_free(api);
		return NULL;
	}
	return api;
}

void local_api_free(struct local_api *api)
{
	if (!api)
		return;
	curl_easy_cleanup(api->easy);
	free(api->base);
	free(api);
}

static size_t keep(char *data, size_t size, size_t n, void *arg)
{
	return buf_add(arg, data, size * n) == 0 ? size * n : 0;
}

static int call(struct local_api *api, const char *method, const char *path, struct buf *body,
	struct err *err)
{
	AUTO_FREE char *url = NULL;
	long status = 0;
	CURLcode r;

	if (asprintf(&url, "%s%s", api->base, path) < 0)
		return err_system(err, -ENOMEM, "%s %s", method, path);
	curl_easy_setopt(api->easy, CURLOPT_URL, url);
	curl_easy_setopt(api->easy, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(api->easy, CURLOPT_WRITEFUNCTION, keep);
	curl_easy_setopt(api->easy, CURLOPT_WRITEDATA, body);
	r = curl_easy_perform(api->easy);
	curl_easy_getinfo(api->easy, CURLINFO_RESPONSE_CODE, &status);
	if (r != CURLE_OK)
		return err_set(
			err, ERR_SYSTEM, EIO, "%s %s: %s", method, path, curl_easy_strerror(r));
	if (status / 100 != 2)
		return err_set(err, ERR_INVALID, EBADMSG, "%s %s: %ld %.*s", method, path, status,
			WORDS_BYTES, buf_str(body));
	return 0;
}

int local_api_get(struct local_api *api, const char *path, struct buf *ret_body, struct err *err)
{
	buf_init(ret_body, MAX_ANSWER_BYTES);
	return call(api, "GET", path, ret_body, err);
}

int local_api_post(struct local_api *api, const char *path, struct err *err)
{
	AUTO_BUF struct buf body;

	buf_init(&body, 65536);
	return call(api, "POST", path, &body, err);
}

/* ---- many at a time -------------------------------------------------------------------------- */

struct deletion {
	const char *name;
	struct buf words;
};

/* What is too long for a message is not read, and no failure. */
static size_t keep_some(char *data, size_t size, size_t n, void *arg)
{
	buf_add(arg, data, size * n);
	return size * n;
}

static void deletion_free(struct deletion *deletion)
{
	buf_done(&deletion->words);
	free(deletion);
}

static CURL *new_deletion(struct local_api *api, const char *prefix, const char *name)
{
	struct deletion *deletion = calloc(1, sizeof(*deletion));
	CURL *easy = deletion ? new_easy(api->timeout_ms) : NULL;
	char *escaped = easy ? curl_easy_escape(easy, name, 0) : NULL;
	AUTO_FREE char *url = NULL;

	if (!escaped || asprintf(&url, "%s%s/%s", api->base, prefix, escaped) < 0) {
		curl_free(escaped);
		curl_easy_cleanup(easy);
		free(deletion);
		return NULL;
	}
	curl_free(escaped);
	deletion->name = name;
	buf_init(&deletion->words, WORDS_BYTES);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep_some);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &deletion->words);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, deletion);
	return easy;
}

static void end_deletion(CURLM *multi, CURL *easy, CURLcode result,
	void (*failed)(const char *name, const char *why))
{
	struct deletion *deletion = NULL;
	long status = 0;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &deletion);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	if (result != CURLE_OK)
		failed(deletion->name, curl_easy_strerror(result));
	else if (status / 100 != 2 && status != 404)
		failed(deletion->name, buf_str(&deletion->words));
	curl_multi_remove_handle(multi, easy);
	curl_easy_cleanup(easy);
	deletion_free(deletion);
}

/* Those that have ended. Returns how many. */
static uint32_t collect(CURLM *multi, void (*failed)(const char *name, const char *why))
{
	const CURLMsg *message;
	uint32_t n = 0;
	int left;

	while ((message = curl_multi_info_read(multi, &left))) {
		end_deletion(multi, message->easy_handle, message->data.result, failed);
		n++;
	}
	return n;
}

int local_api_delete_all(struct local_api *api, const char *prefix, const struct strv *names,
	uint32_t max_at_a_time, void (*failed)(const char *name, const char *why), struct err *err)
{
	CURLM *multi = curl_multi_init();
	uint32_t n_running = 0;
	size_t next = 0;
	int running;

	if (!multi)
		return err_system(err, -ENOMEM, "DELETE");
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)max_at_a_time);
	while (next < names->n_items || n_running) {
		while (next < names->n_items && n_running < max_at_a_time) {
			CURL *easy = new_deletion(api, prefix, names->items[next++]);

			if (easy && curl_multi_add_handle(multi, easy) == CURLM_OK)
				n_running++;
			else
				failed(names->items[next - 1], "no memory");
		}
		curl_multi_perform(multi, &running);
		n_running -= collect(multi, failed);
		if (n_running)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	}
	curl_multi_cleanup(multi);
	return 0;
}
