/* libmicrohttpd, which brings nine more libraries along, is loaded by the server alone: its helpers are the same program. */
#include <microhttpd.h>
#include <stdarg.h>

#include "base/late.h"

#define FUNCTIONS(F)                                                                               \
	F(struct MHD_Daemon *, MHD_start_daemon_va,                                                \
		(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback policy, void *policy_arg, \
			MHD_AccessHandlerCallback handler, void *arg, va_list ap),                 \
		(flags, port, policy, policy_arg, handler, arg, ap), NULL)                         \
	F(void, MHD_stop_daemon, (struct MHD_Daemon * daemon), (daemon), (void)0)                  \
	F(enum MHD_Result, MHD_add_connection,                                                     \
		(struct MHD_Daemon * daemon, MHD_socket fd, const struct sockaddr *at,             \
			socklen_t len),                                                            \
		(daemon, fd, at, len), MHD_NO)                                                     \
	F(int, MHD_get_connection_values,                                                          \
		(struct MHD_Connection * connection, enum MHD_ValueKind kind,                      \
			MHD_KeyValueIterator each, void *arg),                                     \
		(connection, kind, each, arg), 0)                                                  \
	F(const char *, MHD_lookup_connection_value,                                               \
		(struct MHD_Connection * connection, enum MHD_ValueKind kind, const char *key),    \
		(connection, kind, key), NULL)                                                     \
	F(struct MHD_Response *, MHD_create_response_from_buffer,                                  \
		(size_t n, void *data, enum MHD_ResponseMemoryMode mode), (n, data, mode), NULL)   \
	F(enum MHD_Result, MHD_add_response_header,                                                \
		(struct MHD_Response * response, const char *name, const char *value),             \
		(response, name, value), MHD_NO)                                                   \
	F(enum MHD_Result, MHD_queue_response,                                                     \
		(struct MHD_Connection * connection, unsigned status,                              \
			struct MHD_Response *response),                                            \
		(connection, status, response), MHD_NO)                                            \
	F(void, MHD_destroy_response, (struct MHD_Response * response), (response), (void)0)

#define VARIADIC(F)                                                                                \
	F(const union MHD_ConnectionInfo *, MHD_get_connection_info,                               \
		(struct MHD_Connection *, enum MHD_ConnectionInfoType, ...), , )

LATE_LIBRARY("libmicrohttpd.so.12", FUNCTIONS, VARIADIC);

struct MHD_Daemon *MHD_start_daemon(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback policy,
	void *policy_arg, MHD_AccessHandlerCallback handler, void *arg, ...)
{
	struct MHD_Daemon *daemon;
	va_list ap;

	va_start(ap, arg);
	daemon = MHD_start_daemon_va(flags, port, policy, policy_arg, handler, arg, ap);
	va_end(ap);
	return daemon;
}

/* No type has an argument that the library looks at. */
const union MHD_ConnectionInfo *MHD_get_connection_info(
	struct MHD_Connection *connection, enum MHD_ConnectionInfoType type, ...)
{
	late_need();
	return late.MHD_get_connection_info ? late.MHD_get_connection_info(connection, type) : NULL;
}
