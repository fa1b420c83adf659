/* watching.h - what the server says of itself: figures for Prometheus, and its state as text. */
#pragma once

struct request;

void watching_metrics(struct request *request);
void watching_debug(struct request *request);
