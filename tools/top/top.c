// SPDX-License-Identifier: Apache-2.0
//
// `faultline top` as a program of its own, so that the server's need not load what draws on
// terminals. `faultline top` runs it with its options, read and complete:
//
//   faultline-top CONTROL INTERVAL_MS SORT
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/top/model.h"
#include "tools/top/screen.h"

#define SOON (100 * FL_NS_PER_MS)

static volatile sig_atomic_t told_to_end;

static void on_signal(int number)
{
    (void)number;
    told_to_end = 1;
}

// A key, or a signal, goes before the answer of a server that hangs.
static bool user_waits(void)
{
    struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
    return told_to_end || poll(&keys, 1, 0) > 0;
}

// False if the user did not wait for it.
static bool look(struct top_screen *screen, struct top_model *model)
{
    json_t *answer = NULL;
    long status = 0;
    control_look(screen->control, "/v1/status", user_waits, &status, &answer);
    if (status == 0 && user_waits()) // what is shown stays
        return false;
    const char *error = json_string_value(json_object_get(answer, "error"));
    *screen->lost = '\0';
    if (status == 200 && answer) {
        if (top_model_take(model, answer, fl_now()) != 0)
            snprintf(screen->lost, sizeof(screen->lost), "this process is out of memory");
    } else {
        verdict_no_answer(screen->control, error, screen->lost);
    }
    json_decref(answer);
    return true;
}

static void run(struct top_screen *screen, uint64_t interval_ns)
{
    struct top_model model = {0};
    uint64_t due = 0;
    while (!screen->ended && !told_to_end) {
        uint64_t now = fl_now();
        if (now >= due) {
            bool looked = look(screen, &model);
            due = fl_now() + (looked ? interval_ns : SOON);
        }
        top_model_sort(&model, screen->sort);
        screen_draw(screen, &model);
        now = fl_now();
        screen_key(screen, due > now ? (int)((due - now) / FL_NS_PER_MS) + 1 : 0);
    }
    top_model_clear(&model);
}

int main(int argc, char **argv)
{
    struct top_screen screen = {.sort = TOP_BY_FAULTS};
    struct sigaction action = {.sa_handler = on_signal};
    if (argc != 4) {
        fprintf(stderr, "faultline-top: run 'faultline top'\n");
        return EXIT_USAGE;
    }
    screen.control = argv[1];
    for (unsigned i = 0; i < TOP_SORTS; i++) {
        if (strcmp(argv[3], top_sort_name[i]) == 0)
            screen.sort = (enum top_sort)i;
    }
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || !screen_begin())
        return cli_fail("top",
                        "it needs a terminal that it can draw on: 'faultline status --watch' "
                        "needs none");
    run(&screen, strtoull(argv[2], NULL, 10) * FL_NS_PER_MS);
    screen_end();
    return EXIT_DONE;
}
