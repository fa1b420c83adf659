/* late.h - functions of a library that is loaded when one of them is first called. What a library pulls in would else be
 * loaded and relocated at every start of every helper that never calls it. A file that includes this lists the functions
 *
 *	#define FUNCTIONS(F) F(int, x_add, (int a, int b), (a, b), -ENOENT) ...
 *
 * (type, name, parameters, arguments, result without the library), says LATE_LIBRARY("libx.so.1", FUNCTIONS, LATE_NONE) and
 * thereby defines them under their own names, for callers who see the library's header and need not know. Functions with
 * variable arguments are in a second list; the file defines these itself: late_need(), then late.x_printf. Threads: any. */
#pragma once
#include <pthread.h>
#include <stddef.h>

struct late_function {
	const char *name;
	void **where;
};
/* Loads the file and sets each pointer; all or none, and it stays. A line in the log if that cannot be. */
void late_load(const char *file, const struct late_function *functions, size_t n);

#define LATE_MEMBER_(type, name, parameters, arguments, otherwise) type(*name) parameters;
#define LATE_FIND_(type, name, parameters, arguments, otherwise) { #name, (void **)&late.name },
#define LATE_DEFINE_(type, name, parameters, arguments, otherwise)                                 \
	type name parameters                                                                       \
	{                                                                                          \
		late_need();                                                                       \
		return late.name ? late.name arguments : otherwise;                                \
	}

#define LATE_NONE(F)
#define LATE_LIBRARY(file, FUNCTIONS, VARIADIC)                                                    \
	static struct {                                                                            \
		FUNCTIONS(LATE_MEMBER_) VARIADIC(LATE_MEMBER_)                                     \
	} late;                                                                                    \
	static void late_begin(void)                                                               \
	{                                                                                          \
		static const struct late_function functions[] = { FUNCTIONS(LATE_FIND_)            \
				VARIADIC(LATE_FIND_) };                                            \
                                                                                                   \
		late_load(file, functions, sizeof(functions) / sizeof(*functions));                \
	}                                                                                          \
	static void late_need(void)                                                                \
	{                                                                                          \
		static pthread_once_t once = PTHREAD_ONCE_INIT;                                    \
                                                                                                   \
		pthread_once(&once, late_begin);                                                   \
	}                                                                                          \
	FUNCTIONS(LATE_DEFINE_)                                                                    \
	struct late_function /* the caller's semicolon */
