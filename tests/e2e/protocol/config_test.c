// SPDX-License-Identifier: Apache-2.0
//
// The configuration file: what a server takes from it, when, and that a file which is wrong harms
// no VM.
#include <criterion/criterion.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"
#include "tests/e2e/protocol/http.h"

TestSuite(config, .init = need_userfaultfd, .fini = world_close, .timeout = 180);

enum { IMAGE_BYTES = 2 << 20, OUTPUT = 8192 };

static struct world *world;
static struct server server;

static const char *conf(void)
{
    return temp_path(&world->temp, "faultline.conf");
}

static void write_conf(const char *text)
{
    FILE *file = fopen(conf(), "we");
    cr_assert_not_null(file);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

static int run_verb(char output[OUTPUT], const char *const *args)
{
    return faultline_run(output, OUTPUT, args);
}

// Writes the file with the places of this world before `text`.
static void write_places(const char *text)
{
    char all[4096];
    snprintf(all, sizeof(all), "store = %s\nsockets = %s\ncontrol = %s\n%s", world->store,
             temp_path(&world->temp, "sockets"), temp_path(&world->temp, "control.sock"), text);
    write_conf(all);
}

static void begin(const char *text)
{
    const char *args[] = {"serve", "--config", NULL, "--upgrade-trial", "200", NULL};
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    write_places(text);
    args[2] = conf();
    unsetenv("FAULTLINE_STORE");
    unsetenv("FAULTLINE_CONTROL");
    cr_assert(server_start(&world->server, &world->temp, "server", args));
}

static int upgrade(char output[OUTPUT])
{
    const char *args[] = {"upgrade", "--keeper", "--control",
                          temp_path(&world->temp, "control.sock"), NULL};
    return run_verb(output, args);
}

static bool is_served_by_another(void *pid)
{
    long long now = world_status(world, "", "pid");
    return now > 0 && now != *(long long *)pid;
}

Test(config, is_taken_by_a_server_and_options_come_before_it)
{
    char output[OUTPUT];
    begin("# a comment\n\n  workers=3\n\treplay-reserve = 7\r\n");
    cr_expect_eq(world_status(world, "", "workers"), 3);
    const char *args[] = {"config", "show", "--json", conf(), "--", "--workers", "2", NULL};
    setenv("FAULTLINE_CONTROL", "/elsewhere", 1);
    cr_assert_eq(run_verb(output, args), 0, "%s", output);
    unsetenv("FAULTLINE_CONTROL");
    json_t *shown = json_loads(output, 0, NULL);
    size_t i;
    const json_t *option;
    unsigned seen = 0;
    json_array_foreach(json_object_get(shown, "options"), i, option)
    {
        const char *name = json_string_value(json_object_get(option, "name"));
        const char *from = json_string_value(json_object_get(option, "from"));
        const char *value = json_string_value(json_object_get(option, "value"));
        const struct {
            const char *name, *value, *from;
            int line;
        } wanted[] = {{"workers", "2", "option", 0},
                      {"control", "/elsewhere", "environment", 0},
                      {"replay-reserve", "7", "file", 7},
                      {"store", world->store, "file", 1},
                      {"spin", "20", "default", 0}};
        for (unsigned j = 0; j < sizeof(wanted) / sizeof(wanted[0]); j++) {
            if (strcmp(name, wanted[j].name) != 0)
                continue;
            seen++;
            cr_expect_str_eq(value, wanted[j].value);
            cr_expect_str_eq(from, wanted[j].from, "%s", name);
            cr_expect_eq(json_integer_value(json_object_get(option, "line")), wanted[j].line);
        }
    }
    cr_expect_eq(seen, 5);
    json_decref(shown);
    cr_assert_eq(server_stop(&world->server), 0);
}

// Each line that is wrong is named, and no server starts.
Test(config, that_is_wrong_is_said_line_by_line)
{
    static const char *const says[] = {
        ":1: there is no option 'cach'; did you mean 'cache'?",
        ":2: 'zzzzzzzz' is not NAME = VALUE",
        ":3: workers: 'many' is not a number from 1 to 1024",
        ":5: 'spin' is set twice: line 4 sets it, too",
        ":6: 'config' can be given on the command line only",
        ":7: a comment needs a line of its own",
        ":8: allow-part: 'yes' is neither on nor off",
        ":9: write the value of 'store' without quotes",
        ":10: 'mode' has no value",
        ":11: it has a control character",
        ":12: there is no option 'qqqqqqq'\n",
    };
    char output[OUTPUT];
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    write_conf("cach = 1G\nzzzzzzzz\nworkers = many\nspin = 1\nspin = 2\nconfig = x\n"
               "cache = 1G # much\nallow-part = yes\nstore = \"/srv\"\nmode =\nowner = \x01\n"
               "qqqqqqq = 1\n");
    const char *const check[] = {"config", "check", conf(), NULL};
    const char *const serve[] = {"serve", "--config", conf(), NULL};
    cr_assert_eq(run_verb(output, check), 1);
    for (unsigned i = 0; i < sizeof(says) / sizeof(says[0]); i++)
        cr_expect_not_null(strstr(output, says[i]), "no '%s': %s", says[i], output);
    cr_assert_eq(run_verb(output, serve), 2);
    cr_expect_not_null(strstr(output, says[0]), "%s", output);
    write_conf("cache = 1M\ncache-prealloc = 2M\n");
    cr_assert_eq(run_verb(output, check), 1);
    cr_expect_not_null(strstr(output, "--cache-prealloc is more than --cache"), "%s", output);
    write_conf("metrics = 127.0.0.1:9642\n");
    cr_assert_eq(run_verb(output, check), 0, "%s", output);
    cr_expect_not_null(strstr(output, "drop-in metrics-tcp.conf"), "%s", output);
    write_conf("metrics = /run/metrics.sock\n");
    cr_assert_eq(run_verb(output, check), 0, "%s", output);
    cr_expect_null(strstr(output, "metrics-tcp.conf"), "%s", output);
    write_conf("files = /run/faultline-files\n");
    cr_assert_eq(run_verb(output, check), 0, "%s", output);
    bool mounted = access("/run/faultline-files.sock", F_OK) == 0; // of this host's own server
    cr_expect(mounted || strstr(output, "enable --now faultline-files.socket"), "%s", output);
    cr_assert_eq(unlink(conf()), 0);
    cr_assert_eq(run_verb(output, serve), 1);
    cr_expect_not_null(strstr(output, "cannot read the configuration file"), "%s", output);
}

// Whatever the file holds, the outcome is a sentence for each line that is wrong.
Test(config, that_is_garbage_is_no_danger)
{
    enum { ROUNDS = 60, BYTES = 400 };
    static const char parts[] =
        "cache=1G\nspin = 5\n# \"'=\t\r\n--workers==9 999999999999999999999";
    char output[OUTPUT];
    world = world_make(MIXED, IMAGE_BYTES);
    const char *const check[] = {"config", "check", conf(), NULL};
    unsigned seed = 7;
    for (unsigned round = 0; round < ROUNDS; round++) {
        FILE *file = fopen(conf(), "we");
        cr_assert_not_null(file);
        for (unsigned i = 0; i < BYTES; i++) {
            bool known = rand_r(&seed) % 8 != 0;
            unsigned at = (unsigned)rand_r(&seed);
            fputc(known ? parts[at % (sizeof(parts) - 1)] : (int)(at & 0xff), file);
        }
        cr_assert_eq(fclose(file), 0);
        cr_assert_eq(run_verb(output, check), 1, "%s", output);
        cr_assert_eq(strncmp(output, "faultline config: ", 18), 0, "%s", output);
        cr_assert_not_null(strstr(output, "faultline.conf:"), "%s", output);
    }
}

// A reload takes up what was changed, for the engine and for the keeper, and a VM goes on.
Test(config, is_taken_up_by_a_reload)
{
    char output[OUTPUT];
    struct good good;
    begin("workers = 2\n");
    good_start(&good, temp_path(&world->temp, "sockets/image.sock"), &world->memory);
    write_places("workers = 3\nhang-timeout = 9000\n");
    cr_assert_eq(upgrade(output), 0, "%s", output);
    cr_expect_eq(world_status(world, "", "workers"), 3);
    cr_expect_null(strstr(output, "restart"), "%s", output);
    cr_assert_eq(good_end(&good), 0);
    cr_assert_eq(server_stop(&world->server), 0);
}

// What VMs depend on stays as it was until a restart, and that is said.
Test(config, keeps_what_needs_a_restart)
{
    char output[OUTPUT];
    char text[1024];
    begin("workers = 2\n");
    snprintf(text, sizeof(text), "store = /nowhere\nsockets = %s\ncontrol = %s\nworkers = 1\n",
             temp_path(&world->temp, "sockets"), temp_path(&world->temp, "control.sock"));
    write_conf(text);
    cr_assert_eq(upgrade(output), 0, "%s", output);
    cr_expect_not_null(strstr(output, "store was changed in"), "%s", output);
    cr_expect_null(strstr(output, "sockets was changed"), "%s", output);
    cr_expect_eq(world_status(world, "", "workers"), 1);
    struct good good;
    good_start(&good, temp_path(&world->temp, "sockets/image.sock"), &world->memory);
    cr_assert_eq(good_end(&good), 0);
    // Nor does the keeper that has replaced the first one, when it starts an engine.
    long long engine = world_status(world, "", "pid");
    world->server.deaths = 1;
    kill((pid_t)engine, SIGKILL);
    cr_assert(wait_until(is_served_by_another, &engine));
    cr_expect_eq(world_status(world, "", "workers"), 1);
    good_start(&good, temp_path(&world->temp, "sockets/image.sock"), &world->memory);
    cr_assert_eq(good_end(&good), 0);
    cr_assert_eq(server_stop(&world->server), 0);
}

// The upgrade is refused, by the client and by the new engine, and the old one goes on.
Test(config, that_is_wrong_at_a_reload_harms_no_vm)
{
    char output[OUTPUT];
    static struct http_answer answer;
    struct good good;
    begin("workers = 2\n");
    long long engine = world_status(world, "", "pid");
    good_start(&good, temp_path(&world->temp, "sockets/image.sock"), &world->memory);
    write_places("workers = 3\ncach = 1G\n");
    cr_assert_eq(upgrade(output), 1);
    cr_expect_not_null(strstr(output, "faultline.conf:5: there is no option 'cach'"), "%s", output);
    const char *control = temp_path(&world->temp, "control.sock");
    cr_assert_eq(http_ask(control, &answer, "POST", "/v1/upgrade", "{\"keeper\":true}"), 202, "%s",
                 answer.text);
    cr_assert(server_wait_log(&world->server, "event=upgrade state=failed", 1));
    cr_expect(
        server_wait_log(&world->server, "its options or the configuration file are wrong", 1));
    cr_assert_eq(unlink(conf()), 0);
    cr_assert_eq(http_ask(control, &answer, "POST", "/v1/upgrade", "{\"keeper\":true}"), 202, "%s",
                 answer.text);
    cr_assert(server_wait_log(&world->server, "event=upgrade state=failed", 2));
    cr_expect(server_wait_log(&world->server, "faultline.conf cannot be read: No such file", 1));
    cr_expect_eq(world_status(world, "", "pid"), engine);
    cr_assert(good_touch(&good, 16));
    // The next engine does not look at it either.
    write_conf("this is wrong\n");
    world->server.deaths = 2; // the engine that was refused, and this one
    kill((pid_t)engine, SIGKILL);
    cr_assert(wait_until(is_served_by_another, &engine));
    cr_expect_eq(world_status(world, "", "workers"), 2);
    cr_assert_eq(good_end(&good), 0);
    cr_assert_eq(server_stop(&world->server), 0);
}

// A server that may hold VMs starts with what is right in a file that is wrong.
Test(config, that_is_wrong_does_not_keep_a_successor_from_serving)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    write_places("cach = 1G\nworkers = 3\n");
    const char *const args[] = {"serve", "--config", conf(), NULL};
    setenv("LISTEN_FDS", "0", 1); // as a service manager does that keeps descriptors
    cr_assert(server_start(&world->server, &world->temp, "server", args));
    unsetenv("LISTEN_FDS");
    cr_expect(server_wait_log(&world->server, "there is no option 'cach'", 1));
    cr_expect_eq(world_status(world, "", "workers"), 3);
    cr_assert_eq(server_stop(&world->server), 0);
}

// Its engines would all refuse what it has let pass, and its VMs be given up.
Test(config, that_contradicts_itself_does_not_keep_its_engines_from_serving)
{
    char output[OUTPUT];
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    write_places("cache = 1M\ncache-prealloc = 2M\nworkers = 3\n");
    const char *const args[] = {"serve", "--config", conf(), "--upgrade-trial", "200", NULL};
    setenv("LISTEN_FDS", "0", 1);
    cr_assert(server_start(&world->server, &world->temp, "server", args));
    unsetenv("LISTEN_FDS");
    cr_expect(server_wait_log(&world->server, "--cache-prealloc is more than --cache", 1));
    cr_expect_eq(world_status(world, "", "workers"), 3);
    long long first = world_status(world, "", "pid");
    write_places("cache = 1M\n");
    cr_assert_eq(upgrade(output), 0, "%s", output);
    cr_assert(wait_until(is_served_by_another, &first));
    cr_assert_eq(server_stop(&world->server), 0);
}

// Verbs find the server by the file; and in the commands of a unit by what it has published.
Test(config, tells_verbs_where_the_server_is)
{
    char output[OUTPUT];
    char link[TEST_PATH];
    const char *const status[] = {"status", NULL};
    const char *const ls[] = {"ls", "--names", NULL};
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    write_places("");
    unsetenv("FAULTLINE_STORE");
    unsetenv("FAULTLINE_CONTROL");
    snprintf(link, sizeof(link), "%s", temp_path(&world->temp, "run"));
    cr_assert_eq(mkdir(link, 0755), 0);
    setenv("RUNTIME_DIRECTORY", link, 1);
    const char *elsewhere = temp_path(&world->temp, "elsewhere.sock");
    const char *const args[] = {"serve",   "--config",        conf(), "--control",
                                elsewhere, "--upgrade-trial", "200",  NULL};
    cr_assert(server_start(&world->server, &world->temp, "server", args));
    setenv("FAULTLINE_CONFIG", conf(), 1);
    cr_assert_eq(run_verb(output, ls), 0, "%s", output);
    cr_assert_str_eq(output, "image\n");
    cr_expect_eq(run_verb(output, status), 1, "the file names another socket");
    setenv("MAINPID", "1", 1);
    cr_expect_eq(run_verb(output, status), 0, "%s", output);
    const char *const reload[] = {"upgrade", "--keeper", NULL};
    cr_expect_eq(run_verb(output, reload), 0, "%s", output);
    unsetenv("MAINPID");
    cr_assert_eq(server_stop(&world->server), 0);
    // Where the socket itself belongs there, it takes the place of what was published, also if that
    // leads somewhere.
    FILE *there_before = fopen(elsewhere, "we");
    cr_assert_not_null(there_before);
    fclose(there_before);
    unsetenv("FAULTLINE_CONFIG");
    snprintf(link, sizeof(link), "%s", temp_path(&world->temp, "run/control.sock"));
    const char *const there[] = {"serve", "--config", conf(), "--control", link, NULL};
    cr_assert(server_start(&server, &world->temp, "second", there));
    const char *const plain[] = {"status", "--control", link, NULL};
    cr_expect_eq(run_verb(output, plain), 0, "%s", output);
    cr_assert_eq(server_stop(&server), 0);
    unsetenv("RUNTIME_DIRECTORY");
}
