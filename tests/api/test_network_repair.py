"""Our tables while others, or a lack of something, take them away: what is gone comes back, as soon as it can."""
import errno
import os
import resource
import shutil
import signal
import sqlite3
import subprocess

import internet
import oracle
from gardenlib import wait_until
from netfixtures import make, net, outside, refused, says  # noqa: F401 # fixtures, too
from serverproc import NO_POOL


def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)


def said(server, what):
    return [line["data"] for line in server.log_lines() if line["message"] == f"cloche.{what}"]


def database(server, text, *values):
    connection = sqlite3.connect(server.work / "state.db", timeout=30)
    with connection:
        rows = connection.execute(text, values).fetchall()
    connection.close()
    return rows


def no_more_files(server):
    """From now on it cannot open a descriptor more; what it was before."""
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    return before


def test_the_table_for_arp_is_made_anew_too(make, net):
    one = make()
    address = one.info()["ContainerIP"]
    listing = ["nft", "list", "table", "arp", f"cloche-{net.tag}"]
    before = subprocess.check_output(listing).decode()
    assert address in before
    nft(f"flush table arp cloche-{net.tag}")
    wait_until(lambda: "drop" in subprocess.check_output(listing).decode(), "its rule is back")
    nft(f"delete table arp cloche-{net.tag}")
    wait_until(lambda: subprocess.run(listing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode().count(address),
               "the table is back")


def test_so_many_changes_that_some_are_not_heard_of(make, net):
    one, other = make(), make()
    before = oracle.rule_elements(net)
    n_repairs = len(said(net, "table-repaired"))
    os.kill(net.pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            nft("table inet theirs {\nset s {\ntype ipv4_addr\nelements = { "
                + ", ".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(60000)) + " }\n}\n}\n")
            nft("delete table inet theirs")
        nft(f"delete table inet cloche-{net.tag}")
    finally:
        os.kill(net.pid, signal.SIGCONT)
    wait_until(lambda: oracle.rule_elements(net) == before, "the table is back")
    assert says(one, "8.8.8.8") == internet.HOST_ADDRESS
    assert refused(one, other.info()["ContainerIP"])
    wait_until(lambda: len(said(net, "table-repaired")) > n_repairs, "it is told")


def test_a_table_that_cannot_be_made_is_tried_again_ever_less_often(start_server):
    server = start_server()
    server.client.create("a")
    before = oracle.rule_elements(server)
    files = no_more_files(server)
    try:
        nft(f"delete table inet cloche-{server.tag}")
        wait_until(lambda: len(said(server, "table-not-repaired")) >= 3, "it was tried three times")
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, files)
    told = said(server, "table-not-repaired")
    assert [line["again-in-ms"] for line in told[:3]] == [500, 1000, 2000]
    assert "Too many open files" in told[0]["error"]
    wait_until(lambda: oracle.rule_elements(server) == before, "the table is back")
    wait_until(lambda: said(server, "table-repaired"), "it is told")


def test_the_table_of_a_server_whose_work_directory_is_gone_is_taken_over(start_server, outside):
    server = start_server(*NO_POOL)
    server.client.create("a")  # by then there is a table
    server.client.destroy("a")
    server.kill()
    shutil.rmtree(server.work)
    server.start()
    assert [line["table"] for line in said(server, "table-taken-over")] == [f"cloche-{server.tag}"]
    server.client.create("a")
    assert server.client.sh("a", "nc -w 5 8.8.8.8 80 </dev/null")[1].decode().strip() == internet.HOST_ADDRESS


def test_rules_that_cannot_be_put_back_harm_nobody_else(start_server, outside):
    """A record that was tampered with: more of them than go into one change."""
    server = start_server("--deny-network", "8.0.0.0/8")
    rule = {"networks": [{"start": "8.8.8.8", "end": "8.8.8.8"}]}
    for name in ("many", "few"):
        server.client.create(name)
        assert server.client.request("POST", f"/containers/{name}/net/out", rule).status == 200
    (many,) = [row[0] for row in database(server, "SELECT id FROM containers WHERE handle = 'many'")]
    server.kill()
    database(server, "UPDATE rules SET rule = ? WHERE container = ?",
             "1" + " net 8.8.8.8-8.8.8.8" * 100 + " port 80-80" * 100, many)
    server.start()
    (told,) = wait_until(lambda: said(server, "rules-not-put-back"), "it is told")
    assert (told["id"], told["errno"]) == (many, errno.E2BIG)
    assert server.client.sh("few", "nc -w 5 8.8.8.8 80 </dev/null")[1].decode().strip() == internet.HOST_ADDRESS
    assert server.client.sh("many", "nc -w 5 8.8.8.8 80 </dev/null")[0] != 0
    assert server.client.sh("many", "nc -w 5 9.9.9.9 80 </dev/null")[1].decode().strip() == internet.HOST_ADDRESS
