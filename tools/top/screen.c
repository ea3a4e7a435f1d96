// SPDX-License-Identifier: Apache-2.0
#include "tools/top/screen.h"

#include <ctype.h>
#include <errno.h>
#include <ncurses.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/cli.h"
#include "tools/cli/verdict.h"
#include "tools/top/format.h"

enum { HEAD_LINES = 7, BAR = 16, LINE = 512 };
enum { GOOD = 1, BAD, DIM };

// --- the terminal ---

bool screen_begin(void)
{
    // setupterm() of initscr() would end the process.
    SCREEN *terminal = newterm(NULL, stdout, stdin);
    if (!terminal)
        return false;
    set_term(terminal);
    char *move = tigetstr("cup");
    if (!move || move == (char *)-1) { // TERM=dumb
        endwin();
        return false;
    }
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    set_escdelay(25);
    curs_set(0);
    if (has_colors() && start_color() == OK) {
        use_default_colors();
        init_pair(GOOD, COLOR_GREEN, -1);
        init_pair(BAD, COLOR_RED, -1);
        init_pair(DIM, COLOR_CYAN, -1);
    }
    return true;
}

void screen_end(void)
{
    endwin();
}

// A line, cut at the right edge; nothing below the bottom. Text of the server is made plain.
__attribute__((format(printf, 3, 4))) static void put_line(int row, attr_t look, const char *format,
                                                           ...)
{
    char line[LINE];
    va_list args;
    if (row < 0 || row >= LINES)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    attron(look);
    mvaddnstr(row, 0, cli_plain(line), COLS);
    attroff(look);
}

static attr_t colour(int pair, attr_t otherwise)
{
    return has_colors() ? (attr_t)COLOR_PAIR(pair) | otherwise : otherwise;
}

// --- the head ---

// What is wrong, the worst first. False if all is well.
static bool say_trouble(const struct top_screen *screen, const json_t *status,
                        char ret_text[VERDICT_BYTES])
{
    char next[VERDICT_BYTES];
    if (!status || *screen->lost) {
        snprintf(ret_text, VERDICT_BYTES, "%s", *screen->lost ? screen->lost : "no answer yet");
        return true;
    }
    bool bad = verdict_say(status, 0, ret_text);
    size_t length = strlen(ret_text);
    if (bad && verdict_say(status, 1, next))
        snprintf(ret_text + length, VERDICT_BYTES - length, " (and more: faultline status)");
    return bad;
}

static void draw_bar(int row, int column, double share)
{
    int filled = (int)(share * BAR + 0.5);
    filled = filled < 0 ? 0 : filled > BAR ? BAR : filled;
    if (column + BAR + 2 > COLS || row >= LINES)
        return;
    mvaddch(row, column, '[');
    for (int i = 0; i < BAR; i++)
        addch(i < filled ? '#' : '.');
    addch(']');
}

static void draw_server(const json_t *status)
{
    char up[TOP_COLUMN];
    const char *version = json_string_value(json_object_get(status, "version"));
    double seconds = json_number_value(json_object_get(status, "uptime_seconds"));
    long long standby = top_number(status, "keeper", "standby_pid");
    put_line(0, A_BOLD, "faultline %s  engine %lld, up %s  keeper %lld  standby %s  deaths %lld",
             version ? version : "-", top_number(status, "", "pid"), top_seconds(seconds, up),
             top_number(status, "keeper", "pid"), standby > 0 ? "ready" : "NONE",
             top_number(status, "keeper", "deaths"));
}

static void draw_cache(const struct top_model *model, int row)
{
    char used[TOP_COLUMN];
    char limit[TOP_COLUMN];
    char hits[TOP_COLUMN];
    char reads[TOP_COLUMN];
    long long bytes = top_number(model->status, "cache", "bytes");
    long long most = top_number(model->status, "cache", "limit");
    put_line(row, A_NORMAL, "cache %*s  %s of %s  hits %s  reads %s/s  read errors %lld", BAR + 2,
             "", top_bytes((uint64_t)bytes, used), top_bytes((uint64_t)most, limit),
             top_share(model->hits, hits), top_rate(model->reads, reads),
             top_number(model->status, "cache", "read_errors"));
    draw_bar(row, 6, most > 0 ? (double)bytes / (double)most : 0);
}

static void draw_workers_line(const struct top_model *model, int row)
{
    char line[LINE];
    char busy[TOP_COLUMN];
    size_t length = 0;
    double all = 0;
    for (size_t i = 0; i < model->workers; i++)
        all += model->worker[i].busy > 0 ? model->worker[i].busy : 0;
    length = (size_t)snprintf(line, sizeof(line), "workers %zu, %s of their cores:", model->workers,
                              top_share(model->workers ? all / (double)model->workers : 0, busy));
    for (size_t i = 0; i < model->workers && length < sizeof(line); i++)
        length += (size_t)snprintf(line + length, sizeof(line) - length, " %s",
                                   top_share(model->worker[i].busy, busy));
    put_line(row, A_NORMAL, "%s", line);
}

static void draw_head(const struct top_screen *screen, const struct top_model *model)
{
    char trouble[VERDICT_BYTES];
    char text[4][TOP_COLUMN];
    const json_t *status = model->status;
    draw_server(status);
    bool bad = say_trouble(screen, status, trouble);
    put_line(1, bad ? colour(BAD, A_BOLD) : colour(GOOD, A_NORMAL), "%s", trouble);
    put_line(2, A_NORMAL, "VMs %lld now, %lld ever, %lld refused, %lld killed, %lld poisoned pages",
             top_number(status, "", "vms"), top_number(status, "", "attached"),
             top_number(status, "", "refused"), top_number(status, "ended", "killed"),
             top_number(status, "faults", "poisoned"));
    put_line(3, A_NORMAL, "faults %s/s  average %s now; of all p50 %s, p99 %s",
             top_rate(model->faults, text[0]), top_us(model->average_us, text[1]),
             top_us((double)top_number(status, "latency_us", "p50"), text[2]),
             top_us((double)top_number(status, "latency_us", "p99"), text[3]));
    double oldest_us = (double)top_number(status, "faults", "oldest_wait_ms") * 1e3;
    put_line(4, A_NORMAL,
             "waiting %lld, the oldest %s  replay %lld running, %lld done, %lld late pages",
             top_number(status, "faults", "parked"),
             top_us(oldest_us > 0 ? oldest_us : TOP_UNKNOWN, text[0]),
             top_number(status, "replay", "running"), top_number(status, "replay", "done"),
             top_number(status, "replay", "late"));
    draw_cache(model, 5);
    draw_workers_line(model, 6);
}

// --- the tables ---

static void say_replay(const struct top_vm *vm, char ret_text[2 * TOP_COLUMN])
{
    char done[TOP_COLUMN];
    if (vm->replayed < 0 || strcmp(vm->replay, "none") == 0)
        snprintf(ret_text, 2 * TOP_COLUMN, "%s", strcmp(vm->replay, "none") ? vm->replay : "-");
    else
        snprintf(ret_text, 2 * TOP_COLUMN, "%s %s", vm->replay, top_share(vm->replayed, done));
}

static void draw_vm(int row, const struct top_vm *vm)
{
    char text[4][TOP_COLUMN];
    char replay[2 * TOP_COLUMN];
    say_replay(vm, replay);
    put_line(row, *vm->trouble ? colour(BAD, A_NORMAL) : A_NORMAL,
             "%6llu %-19.19s %7lld %-9.9s %5s %6s %6s %4llu %-12.12s", (unsigned long long)vm->id,
             vm->image, vm->pid, *vm->trouble ? vm->trouble : vm->state,
             top_bytes(vm->present, text[0]), top_rate(vm->faults, text[1]),
             top_us(vm->average_us, text[2]), (unsigned long long)vm->waiting, replay);
}

static size_t draw_vms(struct top_screen *screen, const struct top_model *model)
{
    size_t matches = 0;
    int row = HEAD_LINES + 1;
    put_line(HEAD_LINES, A_REVERSE, "%6s %-19s %7s %-9s %5s %6s %6s %4s %-*s", "VM", "IMAGE", "PID",
             "STATE", "MEM", "FLT/S", "AVG", "WAIT", COLS > 72 ? COLS - 70 : 0, "REPLAY");
    for (size_t i = 0; i < model->vms; i++) {
        if (!top_vm_matches(&model->vm[i], screen->filter))
            continue;
        if (matches++ >= screen->first && row < LINES - 1)
            draw_vm(row++, &model->vm[i]);
    }
    if (matches == 0)
        put_line(row, colour(DIM, A_NORMAL),
                 model->vms == 0 ? "no VM is attached"
                                 : "no VM matches the filter: press / and Enter");
    return matches;
}

static size_t draw_images(struct top_screen *screen, const struct top_model *model)
{
    char text[2][TOP_COLUMN];
    put_line(HEAD_LINES, A_REVERSE, "%-30s %6s %9s %7s %7s %8s %*s", "IMAGE", "VMS", "EVER",
             "FLT/S", "LATE/S", "REFUSED", COLS > 74 ? COLS - 73 : 0, "POISON");
    for (size_t i = screen->first; i < model->images; i++) {
        const struct top_image *image = &model->image[i];
        int row = HEAD_LINES + 1 + (int)(i - screen->first);
        if (row < LINES - 1)
            put_line(row, image->poisoned ? colour(BAD, A_NORMAL) : A_NORMAL,
                     "%-30.30s %6llu %9llu %7s %7s %8llu %7llu", image->image,
                     (unsigned long long)image->vms, (unsigned long long)image->attached,
                     top_rate(image->faults, text[0]), top_rate(image->late, text[1]),
                     (unsigned long long)image->refused, (unsigned long long)image->poisoned);
    }
    return model->images;
}

static size_t draw_workers(struct top_screen *screen, const struct top_model *model)
{
    char text[2][TOP_COLUMN];
    put_line(HEAD_LINES, A_REVERSE, "%6s %6s %8s %8s %*s", "WORKER", "VMS", "FLT/S", "WAITING",
             COLS > 33 ? COLS - 33 : 0, "BUSY");
    for (size_t i = screen->first; i < model->workers; i++) {
        const struct top_worker *worker = &model->worker[i];
        int row = HEAD_LINES + 1 + (int)(i - screen->first);
        if (row >= LINES - 1)
            break;
        put_line(row, A_NORMAL, "%6zu %6llu %8s %8llu %*s %4s", i, (unsigned long long)worker->vms,
                 top_rate(worker->faults, text[0]), (unsigned long long)worker->parked, BAR + 2, "",
                 top_share(worker->busy, text[1]));
        draw_bar(row, 32, worker->busy > 0 ? worker->busy : 0);
    }
    return model->workers;
}

static void draw_help(void)
{
    static const char *const lines[] = {
        "q          leave                       v          VMs, images, workers",
        "s          sort VMs by the next column",
        "f l w r m i   sort by faults, latency, waiting, replay, memory, id",
        "/          show VMs whose image or state has the text, or of this id or pid",
        "up, down, page up, page down, home   move",
        "h, ?       this help",
        "",
        "MEM        memory that the VM has        FLT/S   faults a second",
        "AVG        how long faults took, on average, since the last look",
        "WAIT       faults that wait for their page now",
        "REPLAY     the part of its working set that was streamed in or touched",
        "STATE      'memory': the host has none for its pages; 'lane': its memory limit",
        "           makes the server wait, so it has a thread of its own",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        put_line(HEAD_LINES + 1 + (int)i, A_NORMAL, " %s", lines[i]);
}

static void draw_foot(const struct top_screen *screen, size_t rows)
{
    static const char *const view[TOP_VIEWS] = {"VMs", "images", "workers"};
    if (screen->typing)
        put_line(LINES - 1, A_BOLD, "filter: %s_   (Enter: take it, Esc: none)", screen->filter);
    else if (screen->help)
        put_line(LINES - 1, A_BOLD, "press any key");
    else
        put_line(LINES - 1, colour(DIM, A_NORMAL),
                 "%zu %s%s%s%s%s  q leave  v view  s sort  / filter  h help", rows,
                 view[screen->view], screen->view == TOP_VMS ? " by " : "",
                 screen->view == TOP_VMS ? top_sort_name[screen->sort] : "",
                 *screen->filter ? ", filter " : "", screen->filter);
}

// Its rows, and those too that there was no room for.
static size_t draw_table(struct top_screen *screen, const struct top_model *model)
{
    erase();
    draw_head(screen, model);
    if (screen->view == TOP_VMS)
        return draw_vms(screen, model);
    return screen->view == TOP_IMAGES ? draw_images(screen, model) : draw_workers(screen, model);
}

void screen_draw(struct top_screen *screen, const struct top_model *model)
{
    size_t rows = 0;
    if (screen->help) {
        erase();
        draw_head(screen, model);
        draw_help();
    } else {
        rows = draw_table(screen, model);
    }
    if (!screen->help && screen->first > 0 && screen->first >= rows) { // beyond the end
        screen->first = rows > 0 ? rows - 1 : 0;
        rows = draw_table(screen, model);
    }
    draw_foot(screen, rows);
    refresh();
}

// --- keys ---

static void type_filter(struct top_screen *screen, int key)
{
    size_t length = strlen(screen->filter);
    if (key == '\n' || key == '\r' || key == KEY_ENTER) {
        screen->typing = false;
    } else if (key == 27) {
        screen->typing = false;
        screen->filter[0] = '\0';
    } else if ((key == KEY_BACKSPACE || key == 127 || key == '\b') && length > 0) {
        screen->filter[length - 1] = '\0';
    } else if (key < 128 && isprint(key) && length + 1 < sizeof(screen->filter)) {
        screen->filter[length] = (char)key;
        screen->filter[length + 1] = '\0';
    }
}

static void sort_by(struct top_screen *screen, enum top_sort sort)
{
    screen->sort = sort;
    screen->view = TOP_VMS;
    screen->first = 0;
}

static void move_rows(struct top_screen *screen, int key)
{
    size_t page = LINES > HEAD_LINES + 3 ? (size_t)(LINES - HEAD_LINES - 3) : 1;
    size_t back = key == KEY_UP ? 1 : key == KEY_PPAGE ? page : key == KEY_HOME ? SIZE_MAX : 0;
    size_t on = key == KEY_DOWN ? 1 : key == KEY_NPAGE ? page : 0;
    screen->first = screen->first > back ? screen->first - back : 0;
    screen->first += on;
}

static void act_on_key(struct top_screen *screen, int key)
{
    static const char sorts[] = "flwrmi";
    const char *sort = key > 0 && key < 128 ? strchr(sorts, key) : NULL;
    if (key == 'q' || key == 'Q') {
        screen->ended = true;
    } else if (sort) {
        sort_by(screen, (enum top_sort)(sort - sorts));
    } else if (key == 's') {
        sort_by(screen, (enum top_sort)((screen->sort + 1) % TOP_SORTS));
    } else if (key == 'v' || key == '\t') {
        screen->view = (enum top_view)((screen->view + 1) % TOP_VIEWS);
        screen->first = 0;
    } else if (key == '/') {
        screen->typing = true;
        screen->view = TOP_VMS;
        screen->filter[0] = '\0';
    } else if (key == 'h' || key == '?') {
        screen->help = true;
    } else {
        move_rows(screen, key);
    }
}

bool screen_key(struct top_screen *screen, int wait_ms)
{
    timeout(wait_ms);
    errno = 0;
    int key = getch();
    // The terminal has gone: getch() then returns at once, for ever.
    if (key == ERR && wait_ms > 0 && errno != 0 && errno != EINTR && errno != EAGAIN)
        screen->ended = true;
    if (key == ERR)
        return false;
    if (key == KEY_RESIZE) // no key of the user's
        return true;
    if (screen->help)
        screen->help = false;
    else if (screen->typing)
        type_filter(screen, key);
    else
        act_on_key(screen, key);
    return true;
}
