/* conf: the option table, its four spellings, its sources, and the TOML reader. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "conf/conf.h"
#include "conf/toml.h"

static cnk_conf *conf;
static chronik_error err;

static void setup(void) {
    ck_assert_int_eq(cnk_conf_new(&conf), 0);
    memset(&err, 0, sizeof err);
}
static void teardown(void) { cnk_conf_free(conf); }

static int set(const char *name, const char *value) {
    return cnk_conf_set(conf, name, value, CNK_CONF_FROM_FLAG, NULL, &err);
}
static int toml(const char *text) { return cnk_conf_load_toml(conf, text, strlen(text), "t.toml", &err); }

START_TEST(every_row_is_sound) {
    const cnk_conf_option *o;
    for (size_t i = 0; (o = cnk_conf_option_at(i)); i++) {
        ck_assert_msg(o->name[0] && o->doc[0], "row %zu", i);
        for (const char *p = o->name; *p; p++) ck_assert_msg((*p >= 'a' && *p <= 'z') || *p == '.' || *p == '3', "%s", o->name);
        ck_assert_ptr_eq(cnk_conf_option_find(o->name), o);
        char plain[4200];
        ck_assert_int_eq(cnk_conf_format(conf, o->id, plain, sizeof plain), 0);
        /* The default is a value that may be given, unless it says "unset". */
        if (o->fallback[0]) ck_assert_msg(set(o->name, o->fallback) == 0, "%s: %s", o->name, err.text);
        for (const char *p = o->others; *p;) {
            char word[64];
            size_t n = strcspn(p, " ");
            snprintf(word, sizeof word, "%.*s", (int)n, p);
            ck_assert_msg(cnk_conf_option_find(word) == o, "%s is another option's name too", word);
            p += n + strspn(p + n, " ");
        }
    }
    ck_assert_uint_eq(CNK_CONF_COUNT, (unsigned)CNK_CONF_CLUSTER_PEERS + 1);
}
END_TEST

START_TEST(four_spellings_are_one_option) {
    const char *names[] = {"num.partitions", "--num-partitions", "num_partitions", "CHRONIK_NUM_PARTITIONS"};
    for (int i = 0; i < 4; i++) {
        const cnk_conf_option *o = cnk_conf_option_find(names[i]);
        ck_assert_msg(o && o->id == CNK_CONF_NUM_PARTITIONS, "%s", names[i]);
    }
    ck_assert_int_eq(cnk_conf_option_find("CHRONIK_UNIFIED_API_PORT")->id, CNK_CONF_HTTP_PORT);
    ck_assert_int_eq(cnk_conf_option_find("CHRONIK_ADVERTISE")->id, CNK_CONF_ADVERTISED_ADDR);
    ck_assert_int_eq(cnk_conf_option_find("--bind")->id, CNK_CONF_BIND_ADDR);
    ck_assert_int_eq(cnk_conf_option_find("-d")->id, CNK_CONF_DATA_DIR);
    ck_assert_ptr_null(cnk_conf_option_find("-D"));
    ck_assert_ptr_null(cnk_conf_option_find(""));
}
END_TEST

START_TEST(values_have_types_units_and_ranges) {
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_WAL_ROTATION_SIZE), 250000000);
    ck_assert_int_eq(set("wal.rotation.size", "100KB"), 0);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_WAL_ROTATION_SIZE), 100000);
    cnk_conf_free(conf), setup();
    ck_assert_int_eq(set("wal.rotation.size", "64MiB"), 0);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_WAL_ROTATION_SIZE), 67108864);
    ck_assert_int_eq(set("wal.rotation.ms", "90s"), 0);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_WAL_ROTATION_MS), 90000);
    const char *bad[][2] = {{"wal.rotation.size", "99KB"}, {"wal.rotation.size", "2GB"}, {"kafka.port", "65536"},
                            {"kafka.port", "-1"}, {"kafka.port", "12x"}, {"kafka.port", ""}, {"kafka.port", " 1"},
                            {"num.partitions", "0"}, {"log.level", "loud"}, {"http.enable", "maybe"},
                            {"wal.budget.bytes", "9223372036854775807GB"}, {"data.dir", ""}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(set(bad[i][0], bad[i][1]) == CHRONIK_EINVAL, "%s=%s", bad[i][0], bad[i][1]);
        ck_assert_ptr_nonnull(strstr(err.text, bad[i][0]));
    }
}
END_TEST

START_TEST(an_unknown_name_names_the_nearest) {
    ck_assert_int_eq(set("num.partition", "3"), CHRONIK_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "num.partitions"));
    char *argv[] = {(char *)"x", (char *)"--kafka-prot=1", NULL};
    int left;
    ck_assert_int_eq(cnk_conf_load_args(conf, 2, argv, &err, &left), CHRONIK_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "did you mean --kafka-port?"));
    char *env[] = {(char *)"CHRONIK_NUM_PARTITION=3", NULL};
    ck_assert_int_eq(cnk_conf_load_env(conf, env, &err), CHRONIK_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "did you mean CHRONIK_NUM_PARTITIONS?"));
    ck_assert_int_eq(toml("num_partition = 3\n"), CHRONIK_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "t.toml:1: num_partition"));
    ck_assert_int_eq(set("xyzzy", "3"), CHRONIK_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.text, "--help"));
}
END_TEST

START_TEST(the_stronger_source_wins_in_any_order) {
    char *env[] = {(char *)"CHRONIK_NUM_PARTITIONS=3", NULL};
    char *argv[] = {(char *)"x", (char *)"--num-partitions", (char *)"4", NULL};
    int left;
    ck_assert_int_eq(cnk_conf_load_args(conf, 3, argv, &err, &left), 0);
    ck_assert_int_eq(left, 1);
    ck_assert_int_eq(cnk_conf_load_env(conf, env, &err), 0);
    ck_assert_int_eq(toml("num_partitions = 2\n"), 0);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_NUM_PARTITIONS), 4);
    cnk_conf_free(conf), setup();
    ck_assert_int_eq(toml("num_partitions = 2\n"), 0);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_NUM_PARTITIONS), 2);
    ck_assert_int_eq(cnk_conf_load_env(conf, env, &err), 0);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_NUM_PARTITIONS), 3);
}
END_TEST

START_TEST(the_same_option_twice_with_two_values_is_refused) {
    ck_assert_int_eq(set("--bind", "127.0.0.1"), 0);
    ck_assert_int_eq(set("--bind-addr", "127.0.0.1"), 0);
    ck_assert_int_eq(set("--bind-addr", "127.0.0.2"), CHRONIK_EINVAL);
    char *env[] = {(char *)"CHRONIK_BIND=127.0.0.1", (char *)"CHRONIK_BIND_ADDR=127.0.0.2", NULL};
    ck_assert_int_eq(cnk_conf_load_env(conf, env, &err), 0); /* the flag is stronger than both */
    cnk_conf_free(conf), setup();
    ck_assert_int_eq(cnk_conf_load_env(conf, env, &err), CHRONIK_EINVAL);
}
END_TEST

START_TEST(arguments_leave_other_words_alone) {
    char *argv[] = {(char *)"x", (char *)"start", (char *)"-d", (char *)"/d", (char *)"--http-enable",
                    (char *)"--help", (char *)"--auto-create-topics-enable", (char *)"false", (char *)"--",
                    (char *)"--no", NULL};
    int left;
    ck_assert_int_eq(cnk_conf_load_args(conf, 10, argv, &err, &left), 0);
    ck_assert_int_eq(left, 5);
    ck_assert_str_eq(argv[1], "start");
    ck_assert_str_eq(argv[2], "--help");
    ck_assert_str_eq(argv[3], "--");
    ck_assert_str_eq(argv[4], "--no");
    ck_assert_str_eq(cnk_conf_text(conf, CNK_CONF_DATA_DIR), "/d");
    ck_assert(!cnk_conf_bool(conf, CNK_CONF_AUTO_CREATE));
    char *missing[] = {(char *)"x", (char *)"--data-dir", NULL};
    ck_assert_int_eq(cnk_conf_load_args(conf, 2, missing, &err, &left), CHRONIK_EINVAL);
    char *lone[] = {(char *)"x", (char *)"-z", NULL};
    ck_assert_int_eq(cnk_conf_load_args(conf, 2, lone, &err, &left), CHRONIK_EINVAL);
    char *single[] = {(char *)"x", (char *)"-data-dir", (char *)"y", NULL};
    ck_assert_int_eq(cnk_conf_load_args(conf, 3, single, &err, &left), CHRONIK_EINVAL);
}
END_TEST

START_TEST(the_environment_of_others_is_left_alone) {
    char *env[] = {(char *)"CHRONIK_SERVICE_HOST=10.0.0.1", (char *)"CHRONIK_PORT_9092_TCP=tcp://10.0.0.1:9092",
                   (char *)"CHRONIK_PORT=tcp://10.0.0.1:9092", (char *)"RUST_LOG=h2=trace,warn", (char *)"PATH=/bin",
                   (char *)"AWS_REGION=eu-west-3", (char *)"novalue", (char *)"data.dir=x", NULL};
    ck_assert_msg(cnk_conf_load_env(conf, env, &err) == 0, "%s", err.text);
    ck_assert_str_eq(cnk_conf_text(conf, CNK_CONF_LOG_LEVEL), "warn");
    ck_assert_str_eq(cnk_conf_text(conf, CNK_CONF_S3_REGION), "eu-west-3");
    ck_assert_str_eq(cnk_conf_text(conf, CNK_CONF_DATA_DIR), "./data");
}
END_TEST

START_TEST(what_is_not_there_yet_is_refused) {
    ck_assert_int_eq(set("CHRONIK_TLS_CERT", "a.pem"), CHRONIK_EUNSUPPORTED);
    ck_assert_int_eq(set("CHRONIK_SASL_USERS", "a:secret"), CHRONIK_EUNSUPPORTED);
    ck_assert_ptr_null(strstr(err.text, "secret"));
    ck_assert_int_eq(set("CHRONIK_CLUSTER_ENABLED", "true"), CHRONIK_EUNSUPPORTED);
    ck_assert_int_eq(set("CHRONIK_CLUSTER_ENABLED", "false"), 0);
    ck_assert_int_eq(set("object.store.backend", "s3"), CHRONIK_EUNSUPPORTED);
    ck_assert_int_eq(toml("[[peers]]\nid = 1\nkafka = \"a:1\"\n"), CHRONIK_EUNSUPPORTED);
}
END_TEST

START_TEST(contradictions_are_told) {
    ck_assert_int_eq(cnk_conf_check(conf, &err), 0);
    const char *bad[][4] = {{"kafka.port", "6092", "http.enable", "true"},
                            {"min.insync.replicas", "2", "http.enable", "true"},
                            {"wal.budget.bytes", "10MB", "http.enable", "true"},
                            {"socket.request.max.bytes", "1MB", "message.max.bytes", "2MB"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cnk_conf_free(conf), setup();
        ck_assert_int_eq(set(bad[i][0], bad[i][1]), 0);
        ck_assert_int_eq(set(bad[i][2], bad[i][3]), 0);
        ck_assert_int_eq(cnk_conf_check(conf, &err), CHRONIK_EINVAL);
        ck_assert_ptr_nonnull(strstr(err.text, bad[i][0]));
    }
    cnk_conf_free(conf), setup();
    ck_assert_int_eq(set("kafka.port", "0") | set("http.port", "0"), 0);
    ck_assert_int_eq(cnk_conf_check(conf, &err), 0);
}
END_TEST

START_TEST(a_cluster_file_of_one_node_is_read) {
    ck_assert_msg(toml("enabled = false\nnode_id = 7\ndata_dir = \"/var/lib/chronik\" # here\n"
                       "replication_factor = 1\nmin_insync_replicas = 1\n"
                       "[bind]\nkafka = \"127.0.0.1:19092\"\nwal = \"0.0.0.0:9291\"\nsearch = \"0.0.0.0:16092\"\n"
                       "[advertise]\nkafka = \"broker.example:9092\"\nwal = \"x:1\"\n"
                       "[wal]\nprofile = 'low'\nbudget.bytes = 2_000_000_000\n") == 0, "%s", err.text);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_NODE_ID), 7);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_KAFKA_PORT), 19092);
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_HTTP_PORT), 16092);
    ck_assert_str_eq(cnk_conf_text(conf, CNK_CONF_BIND_ADDR), "127.0.0.1");
    ck_assert_str_eq(cnk_conf_text(conf, CNK_CONF_ADVERTISED_ADDR), "broker.example:9092");
    ck_assert_str_eq(cnk_conf_text(conf, CNK_CONF_WAL_PROFILE), "low");
    ck_assert_int_eq(cnk_conf_int(conf, CNK_CONF_WAL_BUDGET), 2000000000);
}
END_TEST

static char transcript[4096];
static int note(void *arg, const cnk_toml_item *item) {
    (void)arg;
    size_t n = strlen(transcript);
    snprintf(transcript + n, sizeof transcript - n, "%d %d %s=%s\n", item->line, item->element, item->key, item->value);
    return 0;
}

START_TEST(toml_is_read_as_written) {
    const char *text = "# c\r\na = 1\n\"b c\".d = 'x\\y'\n\n[t.u]\n e = \"q\\\"\\u00e9\\n\" # c\nf = [1, 2,\n # c\n \"3\",]\n"
                       "[[p]]\nid = 1\n[[p]]\nid = +2\n[z]\ng = -1_0.5\nh = true";
    transcript[0] = 0;
    ck_assert_msg(cnk_toml_read(text, strlen(text), "t", note, NULL, &err) == 0, "%s", err.text);
    ck_assert_str_eq(transcript, "2 -1 a=1\n3 -1 b c.d=x\\y\n6 -1 t.u.e=q\"\xc3\xa9\n\n7 -1 t.u.f=1,2,3\n"
                                 "11 0 p.id=1\n13 1 p.id=2\n15 -1 z.g=-10.5\n16 -1 z.h=true\n");
}
END_TEST

START_TEST(toml_refuses_what_it_does_not_know) {
    const char *bad[] = {"a", "a =", "a = ", "= 1", "a = 1 b = 2", "a = 1979-05-27", "a = {b = 1}", "a = \"x", "a = '''x'''",
                         "a = \"\\q\"", "a = \"\\ud800\"", "a = [1 2]", "a = [[1]]", "a = [1,", "[a", "[a] b", "[]", "[[a]", "a = 1\na = 2",
                         "[a]\n[a]", "a = \"\x01\"", "a = bare", "a = 1__0", "a = _1", "a..b = 1", "a = 1.2.3", "a = 0x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        transcript[0] = 0;
        memset(&err, 0, sizeof err);
        ck_assert_msg(cnk_toml_read(bad[i], strlen(bad[i]), "t", note, NULL, &err) == CHRONIK_EINVAL, "%s -> %s", bad[i], transcript);
        ck_assert_msg(strncmp(err.text, "t:", 2) == 0, "%s", err.text);
    }
    ck_assert_int_eq(cnk_toml_read("a = 1\0", 6, "t", note, NULL, &err), CHRONIK_EINVAL);
}
END_TEST

#ifdef CNK_TEST_HOOKS
START_TEST(each_allocation_may_fail) {
    const char *text = "node_id = 7\n[bind]\nkafka = \"127.0.0.1:1\"\n[[x]]\n";
    for (long n = 0;; n++) {
        cnk_conf *c = NULL, *copy = NULL;
        cnk_mem_fail_at(n);
        int rc = cnk_conf_new(&c);
        if (!rc) rc = cnk_conf_load_toml(c, text, strlen(text), "t", &err);
        if (!rc) rc = cnk_conf_copy(c, &copy);
        cnk_mem_fail_at(-1);
        cnk_conf_free(copy);
        cnk_conf_free(c);
        if (!rc) {
            ck_assert_int_gt(n, 5);
            break;
        }
        ck_assert_int_eq(rc, CHRONIK_ENOMEM);
    }
}
END_TEST
#endif

int main(void) {
    Suite *s = suite_create("conf");
    TCase *t = tcase_create("conf");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, every_row_is_sound);
    tcase_add_test(t, four_spellings_are_one_option);
    tcase_add_test(t, values_have_types_units_and_ranges);
    tcase_add_test(t, an_unknown_name_names_the_nearest);
    tcase_add_test(t, the_stronger_source_wins_in_any_order);
    tcase_add_test(t, the_same_option_twice_with_two_values_is_refused);
    tcase_add_test(t, arguments_leave_other_words_alone);
    tcase_add_test(t, the_environment_of_others_is_left_alone);
    tcase_add_test(t, what_is_not_there_yet_is_refused);
    tcase_add_test(t, contradictions_are_told);
    tcase_add_test(t, a_cluster_file_of_one_node_is_read);
    tcase_add_test(t, toml_is_read_as_written);
    tcase_add_test(t, toml_refuses_what_it_does_not_know);
#ifdef CNK_TEST_HOOKS
    tcase_add_test(t, each_allocation_may_fail);
#endif
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
