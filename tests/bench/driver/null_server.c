#include "null_server.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http.h"

static const char process_head[] = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n\r\n"
				   "{\"process_id\":\"1\",\"stream_id\":\"1\"}\n"
				   "{\"process_id\":\"1\",\"exit_status\":0}\n";
static const char output_head[] = "HTTP/1.1 200 OK\r\n\r\n";
static const char document[] =
	"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/* false: the connection was the process's own, and is to be ended. */
static bool answer(struct http *conn, const char *request)
{
	if (strstr(request, "/attaches/")) {
		http_send_bytes(conn, output_head, sizeof(output_head) - 1);
		return false;
	}
	if (strstr(request, "/processes")) {
		http_send_bytes(conn, process_head, sizeof(process_head) - 1);
		return false;
	}
	return http_send_bytes(conn, document, sizeof(document) - 1) == 0;
}

static bool serve_one(struct http *conn)
{
	char request[256];
	size_t length = 0;
	const char *line = http_read_line(conn);

	if (!line)
		return false;
	snprintf(request, sizeof(request), "%s", line);
	while ((line = http_read_line(conn)) && *line && *line != '\r')
		if (strncasecmp(line, "content-length:", 15) == 0)
			length = strtoul(line + 15, NULL, 10);
	return line && http_skip(conn, length) == 0 && answer(conn, request);
}

static void *serve(void *arg)
{
	struct http *conn = arg;
	int one = 1;

	setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (serve_one(conn))
		;
	/* what a client still sends must not turn our end into a reset */
	shutdown(conn->fd, SHUT_WR);
	http_drain(conn);
	http_close(conn);
	free(conn);
	return NULL;
}

static void take(int listener)
{
	struct http *conn = calloc(1, sizeof(*conn));
	pthread_t thread;

	if (!conn)
		abort();
	conn->fd = accept(listener, NULL, NULL);
	if (conn->fd < 0 || pthread_create(&thread, NULL, serve, conn) != 0) {
		http_close(conn);
		free(conn);
		return;
	}
	pthread_detach(thread);
}

int null_server(long n_connections)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
		listen(listener, 128) < 0 ||
		getsockname(listener, (struct sockaddr *)&address, &len) < 0) {
		perror("driver: null server");
		return 1;
	}
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	for (long i = 0; n_connections == 0 || i < n_connections; i++)
		take(listener);
	return 0;
}
