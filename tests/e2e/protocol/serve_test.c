// SPDX-License-Identifier: Apache-2.0
//
// How a server begins and ends: options, stores it cannot use, sockets of others and of the dead.
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/e2e/protocol/good.h"

TestSuite(serve, .init = need_userfaultfd, .fini = world_close, .timeout = 240);

enum { IMAGE_BYTES = 2 << 20, LISTENERS = 3 };

static struct world *world;

static void begin(void)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_serve(world, NULL);
}

static void check_served(void)
{
    struct good good;
    good_start(&good, world->socket, &world->memory);
    cr_assert_eq(good_end(&good), 0);
}

static bool one_sentence(const char *output)
{
    const char *end = strchr(output, '\n');
    return strncmp(output, "faultline", 9) == 0 && end && end[1] == '\0' && end - output > 20;
}

// A verb that must fail with this status and one sentence that holds `reason`.
static void check_failure(const char *const *args, int status, const char *reason)
{
    char output[4096];
    cr_assert_eq(faultline_run(output, sizeof(output), args), status, "%s %s: %s", args[0],
                 args[1] ? args[1] : "", output);
    cr_assert_not_null(strstr(output, reason), "no '%s' but: %s", reason, output);
    cr_assert(one_sentence(output), "not one sentence: %s", output);
}

static unsigned entries(const char *directory)
{
    unsigned count = 0;
    DIR *dir = opendir(directory);
    cr_assert_not_null(dir, "%s", directory);
    for (const struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}

Test(serve, the_second_at_one_control_path_gives_up)
{
    begin();
    const char *args[] = {"serve",
                          "--store",
                          world->store,
                          "--sockets",
                          temp_path(&world->temp, "sockets2"),
                          "--control",
                          temp_path(&world->temp, "control.sock"),
                          NULL};
    check_failure(args, 1, "another server listens at");
    cr_assert_eq(entries(args[4]), 0, "it left sockets");
    check_served();
    cr_assert_geq(world_status(world, "", "pid"), 1);
    world_stop(world);
}

// Its control path is its own, its directory of sockets is another's.
Test(serve, the_second_in_one_directory_of_sockets_gives_up)
{
    begin();
    const char *args[] = {"serve",
                          "--store",
                          world->store,
                          "--sockets",
                          temp_path(&world->temp, "sockets"),
                          "--control",
                          temp_path(&world->temp, "control2.sock"),
                          NULL};
    check_failure(args, 1, "give each server a directory of its own");
    check_served();
    world_stop(world);
}

static void listen_more(unsigned count)
{
    char name[32];
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "extra/%u.sock", i);
        const char *args[] = {
            "listen", "--control", temp_path(&world->temp, "control.sock"), "--image",
            "image",  "--socket",  temp_path(&world->temp, name),           NULL};
        cr_assert_eq(faultline_run(NULL, 0, args), 0);
    }
}

static bool sockets_are_left(void)
{
    struct stat status;
    return stat(world->socket, &status) == 0 &&
           stat(temp_path(&world->temp, "control.sock"), &status) == 0;
}

Test(serve, stale_sockets_are_replaced_and_none_is_left_at_the_end)
{
    begin();
    cr_assert_eq(mkdir(temp_path(&world->temp, "extra"), 0700), 0);
    listen_more(LISTENERS);
    check_served();
    server_kill(&world->server);
    cr_assert(sockets_are_left(), "a server that is killed cannot remove its sockets");
    cr_assert(server_serve(&world->server, &world->temp, world->store, NULL));
    listen_more(LISTENERS);
    check_served();
    world_stop(world);
    cr_assert_eq(server_logs(&world->server, "event=stopped", 1), 1);
    cr_assert_eq(entries(temp_path(&world->temp, "sockets")), 0, "sockets of images are left");
    cr_assert_eq(entries(temp_path(&world->temp, "extra")), 0, "sockets of listen are left");
    cr_assert_neq(access(temp_path(&world->temp, "control.sock"), F_OK), 0);
}

Test(serve, wrong_use_is_status_2_and_a_sentence)
{
    static const char *const bad[][8] = {
        {"serve", "--workers", "0"},
        {"serve", "--workers", "many"},
        {"serve", "--workers", "-1"},
        {"serve", "--readers", "1.5"},
        {"serve", "--cache", "5Q"},
        {"serve", "--cache", ""},
        {"serve", "--on-error", "maybe"},
        {"serve", "--retries", "9"},
        {"serve", "--owner", "root"},
        {"serve", "--owner", "1:"},
        {"serve", "--mode", "9"},
        {"serve", "--mode", "7777"},
        {"serve", "--spin", "1e9"},
        {"serve", "--read-timeout", "0"},
        {"serve", "more"},
        {"serve", "--nonsense"},
        {"serve", "--store"},
        {"listen", "--image", "image"},
        {"listen", "--socket", "/x"},
        {"listen", "--image", "i", "--socket", "/x", "--owner", "x"},
        {"status", "more"},
        {"status", "--nonsense"},
        {"handler"},
        {"handler", "one"},
        {"frobnicate"},
    };
    char output[4096];
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *const *args = bad[i];
        cr_assert_eq(faultline_run(output, sizeof(output), args), 2, "%s %s %s: %s", args[0],
                     args[1] ? args[1] : "", args[1] && args[2] ? args[2] : "", output);
        cr_assert_gt(strlen(output), 20, "%s %s: no sentence", args[0], args[1] ? args[1] : "");
        cr_assert_null(strstr(output, "event="), "it ran: %s", output);
    }
}

// Options that are refused are named, with what would do, and so are those that there are not.
Test(serve, wrong_options_are_named)
{
    static const struct {
        const char *args[8];
        const char *says;
    } wrong[] = {
        {{"serve", "--cache", "10Q"}, "--cache: '10Q' is not a size"},
        {{"serve", "--cache", "0"}, "--cache: '0' is less than 64K, which is one frame"},
        {{"handler", "--cache", "65535", "a", "b"}, "--cache: '65535' is less than 64K"},
        {{"serve", "--cache", "1M", "--cache-prealloc", "2M"},
         "--cache-prealloc is more than --cache"},
        {{"serve", "--sockets", ""}, "the value of --sockets is empty"},
        {{"serve", "--store="}, "the value of --store is empty"},
        {{"status", "--control", ""}, "the value of --control is empty"},
        {{"serve", "--workers", "0"}, "--workers: '0' is not a number from 1 to 1024"},
        {{"serve", "--nice", "-21"}, "--nice: '-21' is not a number from -20 to 19"},
        {{"serve", "--owner", "no-such-user:0"}, "names a user that does not exist"},
        {{"handler", "--mode", "0888", "a", "b"}, "--mode: '0888' is not an octal mode"},
        {{"drain", "--timeout", "1.5"}, "--timeout: '1.5' is not a time such as 90s"},
        {{"pack", "--name", "a/b", "/dev/null"}, "'a/b' cannot name an image"},
        {{"pack", "--threads", "0", "/dev/null"}, "--threads: '0' is not a number from 1 to 256"},
        {{"pack", "--with", "vmstate", "/dev/null"}, "--with: 'vmstate' is not NAME=FILE"},
        {{"pack", "--with", "a=b", "--with", "a=c", "/dev/null"}, "given already"},
        {{"pack", "--label", "a b=c", "/dev/null"}, "--label: 'a b=c' is not KEY=VALUE"},
        {{"unpack", "--with", ".x=b", "i"}, "--with: '.x=b' does not begin with a name"},
        {{"unpack", "i"}, "an image and an output file are needed"},
        {{"ls", "--tree", "--json"}, "exclude each other"},
        {{"ls", "--frob"}, "there is no option '--frob'"},
        {{"ls", "-x"}, "there is no option '-x'"},
        {{"ls", "--json=1"}, "--json takes no value"},
        {{"rm", "--store"}, "--store needs a value"},
        {{"gc", "--dry"}, "write the option's name out: --dry-run"},
        {{"verify", "--sto=x"}, "write the option's name out: --store"},
        {{"unpack", "--frob", "a", "b"}, "there is no option '--frob'"},
        {{"inspect", "--frob", "a"}, "there is no option '--frob'"},
        {{"listen", "--list", "--remove"}, "--list cannot be used with"},
        {{"listen", "--remove"}, "--remove needs --socket"},
        {{"status", "--frob"}, "there is no option '--frob'"},
        {{"upgrade", "--frob"}, "there is no option '--frob'"},
        {{"doctor", "--patience", "x"}, "--patience: 'x' is not a time such as 500ms"},
        {{"rescue", "--poison", "--kill", "1"}, "--poison and --kill exclude each other"},
        {{"rescue", "--fd", "x", "1"}, "--fd: 'x' is not a number from 0 to"},
    };
    char output[4096];
    char begins[64];
    char ends[64];
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *verb = wrong[i].args[0];
        snprintf(begins, sizeof(begins), "faultline %s: ", verb);
        snprintf(ends, sizeof(ends), " (see faultline %s --help)\n", verb);
        cr_assert_eq(faultline_run(output, sizeof(output), wrong[i].args), 2, "%s", output);
        cr_assert_not_null(strstr(output, wrong[i].says), "no '%s': %s", wrong[i].says, output);
        cr_assert(one_sentence(output) && strncmp(output, begins, strlen(begins)) == 0, "%s",
                  output);
        cr_assert_str_eq(output + strlen(output) - strlen(ends), ends);
    }
}

Test(serve, places_it_cannot_use_are_named)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    const char *control = temp_path(&world->temp, "control.sock");
    const char *file = world->file;
    const char *deep = temp_path(&world->temp, "none/deep");
    const char *on_file[] = {"serve", "--store",   world->store, "--sockets",
                             file,    "--control", control,      NULL};
    check_failure(on_file, 1, "is not a directory");
    const char *nowhere[] = {"serve", "--store",   world->store, "--sockets",
                             deep,    "--control", control,      NULL};
    check_failure(nowhere, 1, "--sockets: the parent directory of");
    const char *no_control[] = {"serve",          "--store",   world->store, "--sockets",
                                world->temp.path, "--control", deep,         NULL};
    check_failure(no_control, 1, deep);
    check_failure(no_control, 1, "No such file or directory");
}

static void write_marker(const char *text)
{
    const char *path = temp_path(&world->temp, "store/faultline-store");
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

Test(serve, stores_it_cannot_use_are_named)
{
    world = world_make(MIXED, IMAGE_BYTES);
    world_pack(world, world->file, "image");
    const char *args[] = {"serve",
                          "--store",
                          NULL,
                          "--sockets",
                          temp_path(&world->temp, "sockets"),
                          "--control",
                          temp_path(&world->temp, "control.sock"),
                          NULL};
    const char *const unusable[] = {temp_path(&world->temp, "no-store"), world->temp.path,
                                    world->file};
    for (unsigned i = 0; i < 3; i++) {
        args[2] = unusable[i];
        check_failure(args, 1, unusable[i]);
    }
    args[2] = temp_path(&world->temp, "no-store");
    check_failure(args, 1, "there is no store");
    args[2] = world->store;
    write_marker("faultline-store 2\n");
    check_failure(args, 1, "this program does not know its version");
    write_marker("something else\n");
    check_failure(args, 1, world->store);
    cr_assert_eq(entries(args[4]), 0, "it left sockets");
}

Test(serve, no_server_is_said_so)
{
    world = world_make(EMPTY, PAGE);
    const char *nowhere = temp_path(&world->temp, "control.sock");
    const char *status[] = {"status", "--control", nowhere, NULL};
    check_failure(status, 1, nowhere);
    check_failure(status, 1, "there is no such socket");
    const char *args[] = {"listen", "--control", nowhere, "--image", "i", "--socket", "/x", NULL};
    check_failure(args, 1, nowhere);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", nowhere);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    close(fd);
    check_failure(status, 1, "no process listens there any more");
}
