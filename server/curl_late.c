/* libcurl, loaded by the first request that this server makes itself: it brings 25 libraries along. */
#include <assert.h>
#include <curl/curl.h>
#include <stdarg.h>

#include "base/late.h"

/* The header has macros of these names. */
#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

#define FUNCTIONS(F)                                                                               \
	F(CURLcode, curl_global_init, (long flags), (flags), CURLE_FAILED_INIT)                    \
	F(CURL *, curl_easy_init, (void), (), NULL)                                                \
	F(void, curl_easy_cleanup, (CURL * easy), (easy), (void)0)                                 \
	F(CURLcode, curl_easy_perform, (CURL * easy), (easy), CURLE_FAILED_INIT)                   \
	F(CURLcode, curl_easy_pause, (CURL * easy, int mask), (easy, mask), CURLE_FAILED_INIT)     \
	F(const char *, curl_easy_strerror, (CURLcode code), (code), "libcurl cannot be loaded")   \
	F(char *, curl_easy_escape, (CURL * easy, const char *text, int n), (easy, text, n), NULL) \
	F(void, curl_free, (void *data), (data), (void)0)                                          \
	F(CURLM *, curl_multi_init, (void), (), NULL)                                              \
	F(CURLMcode, curl_multi_cleanup, (CURLM * multi), (multi), CURLM_INTERNAL_ERROR)           \
	F(CURLMcode, curl_multi_add_handle, (CURLM * multi, CURL * easy), (multi, easy),           \
		CURLM_INTERNAL_ERROR)                                                              \
	F(CURLMcode, curl_multi_remove_handle, (CURLM * multi, CURL * easy), (multi, easy),        \
		CURLM_INTERNAL_ERROR)                                                              \
	F(CURLMcode, curl_multi_perform, (CURLM * multi, int *n_running), (multi, n_running),      \
		CURLM_INTERNAL_ERROR)                                                              \
	F(CURLMcode, curl_multi_poll,                                                              \
		(CURLM * multi, struct curl_waitfd * fds, unsigned n_fds, int ms, int *ret_n),     \
		(multi, fds, n_fds, ms, ret_n), CURLM_INTERNAL_ERROR)                              \
	F(CURLMsg *, curl_multi_info_read, (CURLM * multi, int *n_left), (multi, n_left), NULL)    \
	F(struct curl_slist *, curl_slist_append, (struct curl_slist * list, const char *text),    \
		(list, text), NULL)                                                                \
	F(void, curl_slist_free_all, (struct curl_slist * list), (list), (void)0)

#define VARIADIC(F)                                                                                \
	F(CURLcode, curl_easy_setopt, (CURL *, CURLoption, ...), , )                               \
	F(CURLcode, curl_easy_getinfo, (CURL *, CURLINFO, ...), , )                                \
	F(CURLMcode, curl_multi_setopt, (CURLM *, CURLMoption, ...), , )

LATE_LIBRARY("libcurl.so.4", FUNCTIONS, VARIADIC);

/* The one further argument is a pointer, a long or a curl_off_t: on amd64 and arm64 all of them travel as a pointer does. */
static_assert(sizeof(void *) == sizeof(long) && sizeof(void *) == sizeof(curl_off_t), "");
#define WITH_ARGUMENT(type, name, handle_type, option_type, otherwise)                             \
	type name(handle_type *handle, option_type option, ...)                                    \
	{                                                                                          \
		void *argument;                                                                    \
		va_list ap;                                                                        \
                                                                                                   \
		late_need();                                                                       \
		va_start(ap, option);                                                              \
		argument = va_arg(ap, void *);                                                     \
		va_end(ap);                                                                        \
		return late.name ? late.name(handle, option, argument) : otherwise;                \
	}

WITH_ARGUMENT(CURLcode, curl_easy_setopt, CURL, CURLoption, CURLE_FAILED_INIT)
WITH_ARGUMENT(CURLcode, curl_easy_getinfo, CURL, CURLINFO, CURLE_FAILED_INIT)
WITH_ARGUMENT(CURLMcode, curl_multi_setopt, CURLM, CURLMoption, CURLM_INTERNAL_ERROR)
