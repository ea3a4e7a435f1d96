// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/progress.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tools/cli/cli.h"

enum { BAR = 30, LINE_MAX_CHARS = 256 };

// A signal handler sets it, and can reach no other place. Threads read it.
static atomic_int interrupted;

static void note_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

static double now_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static unsigned terminal_columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

static void format_amount(const struct progress *progress, uint64_t done, uint64_t total, char *buf,
                          size_t size)
{
    char left[32];
    char right[32];
    if (progress->bytes)
        snprintf(buf, size, "%s of %s", cli_format_bytes(done, left, sizeof(left)),
                 cli_format_bytes(total, right, sizeof(right)));
    else
        snprintf(buf, size, "%" PRIu64 " of %" PRIu64, done, total);
}

static void format_rate(const struct progress *progress, uint64_t done, char *buf, size_t size)
{
    char rate[32];
    double seconds = now_seconds() - progress->start;
    buf[0] = '\0';
    if (progress->bytes && seconds > 0.5)
        snprintf(buf, size, "  %s/s",
                 cli_format_bytes((uint64_t)((double)done / seconds), rate, sizeof(rate)));
}

static void draw_bar(struct progress *progress, uint64_t done, uint64_t total)
{
    char bar[BAR + 1];
    char amount[80];
    char rate[48];
    char line[LINE_MAX_CHARS];
    double part = total > 0 ? (double)done / (double)total : 1.0;
    part = part > 1.0 ? 1.0 : part;
    int full = (int)(part * BAR);
    memset(bar, '#', (size_t)full);
    memset(bar + full, '.', (size_t)(BAR - full));
    bar[BAR] = '\0';
    format_amount(progress, done, total, amount, sizeof(amount));
    format_rate(progress, done, rate, sizeof(rate));
    snprintf(line, sizeof(line), "%s [%s] %3d%%  %s%s", progress->what, bar, (int)(part * 100),
             amount, rate);
    unsigned width = terminal_columns();
    if (width < sizeof(line))
        line[width - 1] = '\0'; // a line that wraps could not be drawn over
    fprintf(stderr, "\r\033[K%s", line);
    fflush(stderr);
    progress->shown = true;
}

static int progress_called(void *arg, uint64_t done, uint64_t total)
{
    struct progress *progress = arg;
    if (progress->terminal)
        draw_bar(progress, done, total);
    return interrupted ? 1 : 0;
}

bool progress_interrupted(void)
{
    return interrupted != 0;
}

bool progress_is_drawn(void)
{
    const char *kind = getenv("TERM");
    return isatty(STDERR_FILENO) == 1 && kind && *kind && strcmp(kind, "dumb") != 0;
}

struct fl_progress progress_begin(struct progress *progress, const char *what, bool bytes)
{
    // There is no SA_RESTART, so that waiting for the store's lock can be interrupted, too.
    struct sigaction action = {.sa_handler = note_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction hangup;
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) // nohup
        sigaction(SIGHUP, &action, NULL);
    *progress = (struct progress){
        .what = what,
        .bytes = bytes,
        .terminal = progress_is_drawn(),
        .start = now_seconds(),
    };
    return (struct fl_progress){.fn = progress_called, .arg = progress};
}

void progress_end(struct progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
    progress->shown = false;
}
