/* SPDX-License-Identifier: Apache-2.0
 * test_config.c - host configurations: the shipped files, computed values, and what is
 * refused.
 */
#include "orr_test.h"

#include "orrery/config.h"

static struct orr_error error;

static struct orr_host_config load_shipped(const char *name)
{
    char path[4096];
    struct orr_host_config c = {0};
    const char *root = getenv("ORR_SOURCE_DIR");
    assert_non_null(root);
    snprintf(path, sizeof path, "%s/configs/%s", root, name);
    if (orr_config_load(path, &c, &error) != ORR_OK)
        fail_msg("%s", error.text);
    return c;
}

#define HEAD "host: h\nregion: r1\nstate: /s\n"

static void refuse(const char *text, const char *message)
{
    struct orr_host_config c;
    assert_int_equal(orr_config_parse("h.yaml", text, strlen(text), &c, &error),
                     ORR_EINVAL);
    if (!strstr(error.text, message))
        fail_msg("got: %s\nwanted: %s", error.text, message);
}

static void config_region_file_is_read(void **state)
{
    struct orr_host_config c = load_shipped("region.yaml");
    (void)state;
    assert_true(c.region_role.is_on);
    assert_false(c.cluster.is_on);
    assert_false(c.node.is_on);
    assert_string_equal(c.host.ptr, "r1");
    assert_int_equal(c.listen.n, 2);
    assert_int_equal(c.region_role.jobs_max, 1000000);
    assert_int_equal(c.suspect_ms, 2000);
    assert_int_equal(c.log_level, 1);
    assert_true(c.workers >= 1);
    orr_config_free(&c);
}

static void config_cluster_file_is_read(void **state)
{
    struct orr_host_config c = load_shipped("cluster.yaml");
    (void)state;
    assert_true(c.cluster.is_on);
    assert_string_equal(c.cluster.name.ptr, "c1");
    assert_int_equal(c.cluster.regions.n, 1);
    assert_string_equal(c.cluster.regions.at[0].host.ptr, "r1");
    assert_string_equal(c.cluster.regions.at[0].endpoint.ptr, "tcp://127.0.0.1:7400");
    orr_config_free(&c);
}

static void config_node_file_is_read(void **state)
{
    struct orr_host_config c = load_shipped("node.yaml");
    (void)state;
    assert_true(c.node.is_on);
    assert_string_equal(c.node.cluster.ptr, "c1");
    assert_string_equal(c.node.parent.host.ptr, "c1");
    assert_int_equal(c.node.device_kind, ORR_DEVICES_AUTO);
    assert_int_equal(c.node.port_min, 20000);
    assert_int_equal(c.node.port_max, 29999);
    assert_true(c.node.slots >= 1);
    assert_string_equal(c.node.store.path.ptr, "/var/lib/orrery/n1/store");
    assert_true(c.node.store.quota_bytes == 0 && c.node.store.bytes_per_s == 0);
    orr_config_free(&c);
}

static void config_store_is_read(void **state)
{
    static const char text[] =
        HEAD "listen: [\"ipc:///s/h.sock\"]\n"
             "roles: {region: {}, cluster: {}, node: {devices: {kind: none}, store: "
             "{path: /mnt/x, quota: 3GiB, bandwidth: 64MiB}}}\n";
    struct orr_host_config c;
    (void)state;
    if (orr_config_parse("h.yaml", text, strlen(text), &c, &error) != ORR_OK)
        fail_msg("%s", error.text);
    assert_string_equal(c.node.store.path.ptr, "/mnt/x");
    assert_int_equal(c.node.store.quota_bytes, INT64_C(3) << 30);
    assert_int_equal(c.node.store.bytes_per_s, 64 << 20);
    orr_config_free(&c);
    refuse(HEAD "listen: [\"ipc:///s/h.sock\"]\n"
                "roles: {region: {}, cluster: {}, node: {store: {path: x}}}",
           "roles.node.store.path: write an absolute path");
}

static void config_all_in_one_finds_its_parents_here(void **state)
{
    struct orr_host_config c = load_shipped("all-in-one.yaml");
    (void)state;
    assert_true(c.region_role.is_on && c.cluster.is_on && c.node.is_on);
    assert_int_equal(c.cluster.regions.n, 1);
    assert_string_equal(c.cluster.regions.at[0].host.ptr, "r1");
    assert_string_equal(c.cluster.regions.at[0].endpoint.ptr, "");
    assert_string_equal(c.node.cluster.ptr, "c1");
    assert_string_equal(c.node.parent.host.ptr, "r1");
    assert_string_equal(c.node.parent.endpoint.ptr, "");
    orr_config_free(&c);
}

static void config_replica_file_is_read(void **state)
{
    struct orr_host_config c = load_shipped("region-replica.yaml");
    (void)state;
    assert_true(c.region_role.is_on && !c.region_role.is_joining);
    assert_string_equal(c.host.ptr, "r1-2");
    assert_string_equal(c.region.ptr, "r1");
    assert_int_equal(c.region_role.voters.n, 3);
    assert_string_equal(c.region_role.voters.at[0].host.ptr, "r1-1");
    assert_string_equal(c.region_role.voters.at[2].address.ptr, "127.0.0.1:7432");
    assert_string_equal(c.region_role.address.ptr, "127.0.0.1:7422");
    assert_string_equal(c.region_role.endpoint.ptr, "tcp://127.0.0.1:7420");
    orr_config_free(&c);
}

#define HOST(name, port)                                                               \
    "{host: " name ", address: \"127.0.0.1:" port "\", endpoint: \"ipc:///" name "\"}"
#define LEDGER                                                                         \
    "host: h\nregion: r1\nstate: /s\nlisten: [\"ipc:///h\"]\n"                         \
    "roles:\n  cluster: {}\n  region:\n    ledger: "
#define VOTERS(list) LEDGER "\n      voters:\n" list

static void config_cluster_beside_a_replica_knows_all_voters(void **state)
{
    static const char text[] = VOTERS("      - " HOST("a", "1") "\n      - " HOST(
        "h", "2") "\n      - " HOST("b", "3") "\n");
    struct orr_host_config c;
    (void)state;
    if (orr_config_parse("h.yaml", text, strlen(text), &c, &error) != ORR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(c.cluster.regions.n, 3);
    assert_string_equal(c.cluster.regions.at[0].host.ptr, "a");
    assert_string_equal(c.cluster.regions.at[0].endpoint.ptr, "ipc:///a");
    assert_string_equal(c.cluster.regions.at[1].endpoint.ptr, ""); /* this host */
    assert_string_equal(c.cluster.regions.at[2].host.ptr, "b");
    assert_string_equal(c.region_role.address.ptr, "127.0.0.1:2");
    orr_config_free(&c);
}

static void config_single_region_host_needs_no_ledger_fields(void **state)
{
    static const char text[] = HEAD "roles: {region: {}}\nlisten: [\"ipc:///s/h\"]\n";
    struct orr_host_config c;
    (void)state;
    assert_int_equal(orr_config_parse("h.yaml", text, strlen(text), &c, &error),
                     ORR_OK);
    assert_int_equal(c.region_role.voters.n, 0);
    assert_string_equal(c.region_role.address.ptr, "");
    assert_string_equal(c.region_role.endpoint.ptr, "ipc:///s/h");
    orr_config_free(&c);
}

static void config_host_that_joins_brings_its_address(void **state)
{
    static const char text[] =
        LEDGER "{join: true, address: \"127.0.0.1:9\", endpoint: \"ipc:///h\"}\n";
    struct orr_host_config c;
    (void)state;
    refuse(text, "roles.cluster.regions: the region has other hosts, too; list");
    char listed[1024];
    snprintf(listed,
             sizeof listed,
             "%.*s  cluster: {regions: [%s]}\n%s",
             (int)(strstr(text, "  cluster") - text),
             text,
             "{host: h, endpoint: \"ipc:///h\"}, {host: a, endpoint: \"ipc:///a\"}",
             strstr(text, "  region:"));
    if (orr_config_parse("h.yaml", listed, strlen(listed), &c, &error) != ORR_OK)
        fail_msg("%s", error.text);
    assert_true(c.region_role.is_joining);
    assert_string_equal(c.region_role.address.ptr, "127.0.0.1:9");
    assert_string_equal(c.cluster.regions.at[0].endpoint.ptr, "");
    assert_string_equal(c.cluster.regions.at[1].endpoint.ptr, "ipc:///a");
    orr_config_free(&c);
}

static void config_broken_ledger_is_refused_with_remedy(void **state)
{
    (void)state;
    refuse(VOTERS("      - " HOST("h", "1") "\n      - " HOST("a", "2") "\n"),
           "h.yaml:9:7: roles.region.ledger.voters: 2 voters; write 1, 3 or 5: an even "
           "number survives no more losses");
    refuse(VOTERS("      - " HOST("a", "1") "\n"),
           "roles.region.ledger.voters: this host, h, is not among them; add it, or "
           "write `join: true`");
    refuse(VOTERS("      - " HOST("h", "1") "\n      - " HOST(
               "a", "2") "\n"
                         "      - " HOST("a", "3") "\n"),
           "h.yaml:12:10: roles.region.ledger.voters[2].host: voter 2 has it already");
    refuse(VOTERS("      - " HOST("h", "1") "\n      - " HOST(
               "a", "1") "\n"
                         "      - " HOST("b", "3") "\n"),
           "roles.region.ledger.voters[1].address: voter 1 has it already");
    refuse(VOTERS("      - " HOST("h", "0") "\n"),
           "h.yaml:10:19: roles.region.ledger.voters[0].address: 127.0.0.1:0: expected "
           "IP:PORT");
    refuse(VOTERS("      - {host: h, address: \"r1:70\", endpoint: \"ipc:///h\"}\n"),
           "r1:70: expected IP:PORT, such as");
    refuse(
        VOTERS("      - {host: h, address: \"10.1.1.1:70\", endpoint: \"ipc:///h\"}\n"),
        "10.1.1.1:70: without keys only loopback");
    refuse(VOTERS("      - {host: h, address: \"127.0.0.1:70\", endpoint: h}\n"),
           "voters[0].endpoint: h: expected ipc:///PATH or tcp://");
    refuse(
        VOTERS("      - " HOST("h", "1") "\n") "      address: \"127.0.0.1:2\"\n",
        "roles.region.ledger.address: 127.0.0.1:2, but 127.0.0.1:1 among the voters");
    refuse(LEDGER "{join: true, endpoint: \"ipc:///h\"}\n",
           "roles.region.ledger.address: missing; IP:PORT where");
    refuse(LEDGER "{join: true, address: \"127.0.0.1:1\"}\n",
           "roles.region.ledger.endpoint: missing; where clients");
    refuse(VOTERS("      - " HOST("h", "1") "\n") "      join: true\n",
           "roles.region.ledger.voters: not with `join: true`");
}

static void config_small_fleet_needs_few_lines(void **state)
{
    static const char text[] =
        HEAD "listen: [\"ipc:///s/h.sock\"]\n"
             "roles: {region: {}, cluster: {}, node: {devices: "
             "{kind: emulated, count: 2}, overlay: {address: 192.0.2.7}}}\n"
             "peers: [{name: r2, endpoint: \"tcp://127.0.0.1:1\"}]\n";
    struct orr_host_config c;
    (void)state;
    if (orr_config_parse("h.yaml", text, strlen(text), &c, &error) != ORR_OK)
        fail_msg("%s", error.text);
    assert_string_equal(c.cluster.name.ptr, "h");
    assert_string_equal(c.node.cluster.ptr, "h");
    assert_int_equal(c.node.device_count, 2);
    assert_int_equal(c.node.device_memory_bytes, 1 << 30);
    assert_int_equal(c.peers.n, 1);
    assert_string_equal(c.node.overlay.address.ptr, "192.0.2.7");
    assert_int_equal(c.node.overlay.port, 4789);
    assert_string_equal(c.peers.at[0].name.ptr, "r2");
    orr_config_free(&c);
}

static void config_broken_is_refused_with_remedy(void **state)
{
    (void)state;
    refuse(HEAD "lisen: []",
           "h.yaml:4:1: lisen: unknown field; did you mean `listen`?");
    refuse(HEAD "roles: {nod: {}}", "roles.nod: unknown field; did you mean `node`?");
    refuse(HEAD, "roles: no role; add region, cluster or node");
    refuse("host: h\nregion: r1\nroles: {region: {}}", "state: missing");
    refuse("host: h\nregion: r1\nstate: s\nroles: {region: {}}",
           "state: write an absolute path");
    refuse(HEAD "roles: {region: {}}", "listen: a region needs an endpoint");
#define PEER(name) "{name: " name ", endpoint: \"tcp://127.0.0.1:1\"}"
#define PEERS(list)                                                                    \
    HEAD "listen: [\"ipc:///s/h\"]\nroles: {region: {}}\npeers: [" list "]\n"
    refuse(PEERS(PEER("h")),
           "peers: host h is of this region, too; a name is one host's");
    refuse(PEERS(PEER("r1, host: x")), "peers: r1 is this region itself");
    refuse(PEERS(PEER("r2, host: x") ", " PEER("r3, host: x")),
           "peers: host x is there twice");
    refuse(HEAD "roles: {cluster: {}}",
           "roles.cluster.regions: the region does not run on this host; list");
    refuse(HEAD "roles: {cluster: {regions: [{host: r}]}}",
           "roles.cluster.regions[0].endpoint: missing");
    refuse(HEAD "roles: {cluster: {regions: [{host: r, endpoint: x}]}}",
           "h.yaml:4:39: roles.cluster.regions[0].endpoint: x: expected ipc:///PATH");
    refuse(HEAD "roles: {cluster: {regions: [{host: h, endpoint: \"ipc:///a\"}]}}",
           "roles.cluster.regions[0].host: h is this host, and has no role region");
    refuse(HEAD "roles: {cluster: {regions: [{host: r, endpoint: \"ipc:///a\"}, "
                "{host: r, endpoint: \"ipc:///b\"}]}}",
           "roles.cluster.regions[1].host: r is listed already");
    refuse(HEAD "roles: {node: {}}", "roles.node.cluster.name: missing");
    refuse(
        HEAD "roles: {node: {cluster: {name: c, host: c, endpoint: x}}}",
        "h.yaml:4:44: roles.node.cluster.endpoint: x: expected ipc:///PATH or tcp://");
    refuse(HEAD "roles: {region: {}}\ntiming: {heartbeat: 5s}",
           "timing: suspect must be");
    refuse(HEAD "roles: {region: {}}\ntiming: {heartbeat: 500ms, lease: 7s}",
           "timing: lease must be at least 16 heartbeats");
    refuse(HEAD "roles: {region: {}, cluster: {}, node: {devices: {kind: emulated}}}",
           "how many emulated devices?");
#define OVERLAY(rest)                                                                  \
    HEAD "listen: [\"ipc:///s/h\"]\nroles: {region: {}, cluster: {}, "                 \
         "node: {devices: {kind: none}, overlay: " rest "}}\n"
    refuse(OVERLAY("{address: 127.0.0.1}"), "roles.node.overlay.address: 127.0.0.1");
    refuse(OVERLAY("{address: host}"), "write an IPv4 address of this machine");
    refuse(OVERLAY("{address: 0.0.0.0}"), "write an IPv4 address of this machine");
    refuse(OVERLAY("{address: 239.1.1.1}"), "write an IPv4 address of this machine");
    refuse(OVERLAY("{port: 0}"), "roles.node.overlay.port");
}

static void config_open_listener_without_keys_is_refused(void **state)
{
    (void)state;
    const char *remedy = "without keys only ipc:// and loopback";
    refuse(HEAD "roles: {region: {}}\nlisten: [\"tcp://0.0.0.0:7000\"]", remedy);
    refuse(HEAD "roles: {region: {}}\nlisten: [\"tcp://*:7000\"]", remedy);
    refuse(HEAD "roles: {region: {}}\nlisten: [\"tcp://10.1.2.3:7000\"]", remedy);
    refuse(HEAD "roles: {region: {}}\nlisten: [\"tcp://127.0.0.1:0\"]",
           "expected ipc:///PATH or");
    refuse(HEAD "roles: {region: {}}\nlisten: [\"tcp://127.0.0.1\"]",
           "expected ipc:///PATH or");
    refuse(HEAD "roles: {region: {}}\nlisten: [\"ipc://x\"]",
           "write the absolute path");
    refuse(HEAD "roles: {region: {}}\nlisten: [\"udp://x\"]",
           "expected ipc:///PATH or");
}

static void config_explain_shows_the_fields_of_voters(void **state)
{
    char text[2048] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    (void)state;
    assert_non_null(out);
    assert_int_equal(
        orr_yaml_explain(
            orr_host_config_table(), "roles.region.ledger.voters", out, &error),
        ORR_OK);
    fclose(out);
    assert_non_null(strstr(text, "a list of at most 16 of {host, address, endpoint}"));
    assert_non_null(strstr(text, "voters[].address: IP:PORT of its ledger"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_region_file_is_read),
        cmocka_unit_test(config_cluster_file_is_read),
        cmocka_unit_test(config_node_file_is_read),
        cmocka_unit_test(config_store_is_read),
        cmocka_unit_test(config_all_in_one_finds_its_parents_here),
        cmocka_unit_test(config_replica_file_is_read),
        cmocka_unit_test(config_cluster_beside_a_replica_knows_all_voters),
        cmocka_unit_test(config_single_region_host_needs_no_ledger_fields),
        cmocka_unit_test(config_host_that_joins_brings_its_address),
        cmocka_unit_test(config_broken_ledger_is_refused_with_remedy),
        cmocka_unit_test(config_explain_shows_the_fields_of_voters),
        cmocka_unit_test(config_small_fleet_needs_few_lines),
        cmocka_unit_test(config_broken_is_refused_with_remedy),
        cmocka_unit_test(config_open_listener_without_keys_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
