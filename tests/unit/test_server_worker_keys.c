/* Keys in the forms that operators have them in: what OpenSSH's client is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/strv.h"
#include "server/worker/gateway.h"
#include "server/worker/keys.h"

/* The first bytes of an RSA key of 2048 bits: SEQUENCE, version 0, and a modulus or an algorithm. */
#define PKCS1_BODY "MIIEpAIBAAKCAQEAw3xzmA8hM2xyCr0pGxdYvMHkYMqXlzQ=\n"
#define PKCS8_BODY "MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoI=\n"
#define PEM(label, body) "-----BEGIN " label "-----\n" body "-----END " label "-----\n"

static void expect_key(const char *pem, const char *expected)
{
	struct err err = { 0 };
	AUTO_BUF struct buf out;

	buf_init(&out, 65536);
	assert_int_equal(private_key_tidy(pem, &out, &err), 0);
	assert_string_equal(buf_str(&out), expected);
}

static void expect_refusal(const char *pem, const char *words)
{
	struct err err = { 0 };
	AUTO_BUF struct buf out;

	buf_init(&out, 65536);
	assert_true(private_key_tidy(pem, &out, &err) < 0);
	assert_non_null(strstr(err.msg, words));
}

static void test_pkcs1_under_the_name_of_pkcs8_gets_its_own(void **state)
{
	(void)state;
	expect_key(PEM("PRIVATE KEY", PKCS1_BODY), PEM("RSA PRIVATE KEY", PKCS1_BODY));
}

static void test_what_has_its_right_name_keeps_it(void **state)
{
	(void)state;
	expect_key(PEM("PRIVATE KEY", PKCS8_BODY), PEM("PRIVATE KEY", PKCS8_BODY));
	expect_key(PEM("RSA PRIVATE KEY", PKCS1_BODY), PEM("RSA PRIVATE KEY", PKCS1_BODY));
	expect_key(PEM("OPENSSH PRIVATE KEY", "b3BlbnNzaC1rZXktdjEA\n"),
		PEM("OPENSSH PRIVATE KEY", "b3BlbnNzaC1rZXktdjEA\n"));
}

static void test_a_body_that_is_no_der_is_left_to_ssh(void **state)
{
	(void)state;
	expect_key(PEM("PRIVATE KEY", "AAAA\n"), PEM("PRIVATE KEY", "AAAA\n"));
	expect_key(PEM("PRIVATE KEY", "*\n"), PEM("PRIVATE KEY", "*\n"));
}

static void test_line_ends_and_surroundings_are_tidied(void **state)
{
	(void)state;
	expect_key(
		"a comment\n  -----BEGIN PRIVATE KEY-----\r\n  MIIEpAIBAAKCAQEAw3xz\r\n  mA8h \r\n"
		"  -----END PRIVATE KEY-----",
		PEM("RSA PRIVATE KEY", "MIIEpAIBAAKCAQEAw3xz\nmA8h\n"));
}

static void test_what_is_no_private_key_is_said(void **state)
{
	(void)state;
	expect_refusal("", "no key in PEM form");
	expect_refusal("-----BEGIN PRIVATE KEY-----\nMIIE\n", "no key in PEM form");
	expect_refusal(PEM("PUBLIC KEY", "AAAA\n"), "holds a PUBLIC KEY");
	expect_refusal(PEM("ENCRYPTED PRIVATE KEY", "AAAA\n"), "passphrase");
	expect_refusal(PEM("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nAAAA\n"), "passphrase");
}

#define BASE64 "AAAAB3NzaC1yc2EAAAADAQABAAABAQ"

static void test_public_keys_hold_for_every_gateway(void **state)
{
	struct err err = { 0 };
	AUTO_BUF struct buf out;

	(void)state;
	buf_init(&out, 65536);
	assert_int_equal(host_keys_list("# web\n\nssh-rsa " BASE64 " host@web\r\n"
					"[web.example.com]:2222 ecdsa-sha2-nistp256 " BASE64 "\n"
					"  ssh-ed25519\t" BASE64,
				 &out, &err),
		0);
	assert_string_equal(buf_str(&out),
		"* ssh-rsa " BASE64 "\n"
		"* ecdsa-sha2-nistp256 " BASE64 "\n"
		"* ssh-ed25519 " BASE64 "\n");
}

static void test_a_line_without_a_public_key_is_named(void **state)
{
	struct err err = { 0 };
	AUTO_BUF struct buf out;

	(void)state;
	buf_init(&out, 65536);
	assert_true(host_keys_list("ssh-rsa " BASE64 "\nssh-rsa short\n", &out, &err) < 0);
	assert_non_null(strstr(err.msg, "line 2"));
	assert_true(host_keys_list("one\n", &out, &err) < 0);
	assert_non_null(strstr(err.msg, "line 1"));
	assert_true(host_keys_list("# nothing\n", &out, &err) < 0);
	assert_non_null(strstr(err.msg, "no public key"));
}

static void test_a_gateway_is_host_and_port(void **state)
{
	static const struct {
		const char *text, *host;
		unsigned port;
	} good[] = { { "web", "web", 2222 }, { "web:22", "web", 22 },
		{ "10.0.0.1:2223", "10.0.0.1", 2223 }, { "[fd00::1]:2222", "fd00::1", 2222 },
		{ "[fd00::1]", "fd00::1", 2222 } };
	static const char *const bad[] = { "", ":22", "web:", "web:0", "web:65536", "web:x",
		"[fd00::1", "[fd00::1]x", "fd00::1", "we b:22", "-oProxyCommand=x y", "$(x):22" };
	uint16_t port;

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(good); i++) {
		AUTO_FREE char *host = NULL;

		assert_int_equal(gateway_parse(good[i].text, &host, &port), 0);
		assert_string_equal(host, good[i].host);
		assert_int_equal(port, good[i].port);
	}
	for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
		AUTO_FREE char *host = NULL;

		assert_int_equal(gateway_parse(bad[i], &host, &port), -22);
		assert_null(host);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pkcs1_under_the_name_of_pkcs8_gets_its_own),
		cmocka_unit_test(test_what_has_its_right_name_keeps_it),
		cmocka_unit_test(test_a_body_that_is_no_der_is_left_to_ssh),
		cmocka_unit_test(test_line_ends_and_surroundings_are_tidied),
		cmocka_unit_test(test_what_is_no_private_key_is_said),
		cmocka_unit_test(test_public_keys_hold_for_every_gateway),
		cmocka_unit_test(test_a_line_without_a_public_key_is_named),
		cmocka_unit_test(test_a_gateway_is_host_and_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
