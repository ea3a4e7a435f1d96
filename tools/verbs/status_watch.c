// SPDX-License-Identifier: Apache-2.0
//
// `faultline status --watch`. On a terminal that can move its cursor each page is drawn over the
// one before; elsewhere the pages come one after the other, without any escape sequence.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/cli/cli.h"
#include "tools/cli/control_client.h"
#include "tools/cli/exit_status.h"
#include "tools/verbs/status_page.h"

enum { LINES_OF_A_TERMINAL = 24 };

size_t status_lines(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0)
        return size.ws_row;
    return LINES_OF_A_TERMINAL;
}

static bool can_redraw(void)
{
    const char *kind = getenv("TERM");
    return isatty(STDOUT_FILENO) == 1 && kind && *kind && strcmp(kind, "dumb") != 0;
}

// --- its end ---

// It comes only between pages, where all that was printed ends with a newline and is written.
static void leave(int number)
{
    (void)number;
    if (isatty(STDOUT_FILENO) == 1)           // behind the ^C
        (void)!write(STDOUT_FILENO, "\n", 1); // a terminal that has gone is no error
    _exit(EXIT_DONE);
}

static void take_signals(sigset_t *ret_ends)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = leave};
    sigemptyset(ret_ends);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        struct sigaction before;
        sigaction(ends[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) // nohup
            sigaction(ends[i], &action, NULL);
        sigaddset(ret_ends, ends[i]);
    }
}

// --- pages ---

// Returns the next page, or NULL without memory.
static char *next_page(const char *control, struct top_model *model, bool all)
{
    json_t *answer = NULL;
    long code = 0;
    char *page = NULL;
    size_t lines = status_lines();
    control_try(control, "GET", "/v1/status", NULL, &code, &answer);
    if (code != 200 || !answer)
        page = status_page_lost(control, json_string_value(json_object_get(answer, "error")));
    else if (top_model_take(model, answer, fl_now()) == 0)
        page = status_page(model, all ? 0 : lines - 1);
    json_decref(answer);
    return page;
}

static void draw_over(const char *page)
{
    fputs("\033[H", stdout);
    while (*page) {
        size_t length = strcspn(page, "\n");
        printf("%.*s\033[K\n", (int)length, page);
        page += length + (page[length] == '\n');
    }
    fputs("\033[J", stdout);
}

static void print_page(const char *page, bool redraw, bool first)
{
    if (redraw)
        draw_over(page);
    else
        printf("%s%s", first ? "" : "\n", page);
    fflush(stdout);
}

int status_watch(const char *control, uint64_t interval_ms, bool all)
{
    sigset_t ends;
    struct top_model model = {0};
    struct timespec pause = {.tv_sec = (time_t)(interval_ms / 1000),
                             .tv_nsec = (long)(interval_ms % 1000) * 1000000};
    bool redraw = can_redraw();
    bool first = true;
    take_signals(&ends);
    if (redraw)
        fputs("\033[2J", stdout);
    while (!ferror(stdout)) {
        char *page = next_page(control, &model, all);
        if (!page) {
            top_model_clear(&model);
            return cli_fail("status", "there is no memory for the state");
        }
        sigprocmask(SIG_BLOCK, &ends, NULL);
        print_page(page, redraw, first);
        sigprocmask(SIG_UNBLOCK, &ends, NULL);
        free(page);
        first = false;
        nanosleep(&pause, NULL); // if a signal ends it early (SIGCONT) the next page comes earlier
    }
    top_model_clear(&model);
    return EXIT_FAILED;
}
