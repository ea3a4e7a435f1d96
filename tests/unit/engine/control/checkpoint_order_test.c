// SPDX-License-Identifier: Apache-2.0
//
// From the body of an order to the command line: nothing that a client sends becomes an option that
// it is not, and what does not fit is refused, not left out.
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/control/checkpoint_order.h"
#include "engine/link/channel.h"

static struct fl_checkpoint_order order;
static struct fl_error reason;

static int read_order(const char *text)
{
    json_t *body = json_loads(text, 0, NULL);
    cr_assert_not_null(body, "%s", text);
    int error = fl_checkpoint_order_read(body, "/run/control.sock", &order, &reason);
    json_decref(body);
    return error;
}

Test(checkpoint_order, least)
{
    cr_assert_eq(read_order("{\"vm\":7,\"name\":\"a\"}"), 0, "%s", reason.text);
    cr_assert(!order.of.process && order.of.number == 7);
    cr_assert_str_eq(order.name, "a");
    cr_assert_str_eq(order.arguments,
                     "checkpoint\n--external\n--json\n--control=/run/control.sock\n--name=a\n"
                     "--timeout=600000ms\n--max-pause=10000ms\n7\n");
}

Test(checkpoint_order, all)
{
    cr_assert_eq(
        read_order("{\"vm\":1,\"name\":\"a\",\"vmstate\":\"/a --full\",\"drives\":[\"/d\",\"/e\"],"
                   "\"labels\":[\"k==--json\"],\"keep_armed\":true,\"full\":true,"
                   "\"while_paused\":false,\"replace\":true,\"timeout_ms\":5,\"max_pause_ms\":6}"),
        0, "%s", reason.text);
    cr_assert_str_eq(order.arguments,
                     "checkpoint\n--external\n--json\n--control=/run/control.sock\n--name=a\n"
                     "--timeout=5ms\n--max-pause=6ms\n--with=vmstate=/a --full\n--drive=/d\n"
                     "--drive=/e\n--label=k==--json\n--keep-armed\n--full\n--replace\n1\n");
}

// The command has the API of a QEMU, and of a VM that nobody serves the orchestrator has.
Test(checkpoint_order, ways)
{
    cr_assert_eq(read_order("{\"vm\":1,\"name\":\"a\",\"live\":true,\"leave_paused\":true}"), 0,
                 "%s", reason.text);
    cr_assert_str_eq(order.arguments,
                     "checkpoint\n--external\n--json\n--control=/run/control.sock\n--name=a\n"
                     "--timeout=600000ms\n--max-pause=10000ms\n--live\n--leave-paused\n1\n");
    cr_assert_eq(read_order("{\"vm\":1,\"name\":\"a\",\"qmp\":\"/q --full\"}"), 0, "%s",
                 reason.text);
    cr_assert_str_eq(order.arguments, "checkpoint\n--while-heard\n--qmp=/q --full\n--json\n"
                                      "--control=/run/control.sock\n--name=a\n--timeout=600000ms\n"
                                      "--max-pause=10000ms\n1\n");
    cr_assert_eq(read_order("{\"pid\":7,\"name\":\"a\",\"base\":\"b\",\"leave_paused\":true}"), 0,
                 "%s", reason.text);
    cr_assert(order.of.process && order.of.number == 7);
    cr_assert_str_eq(order.arguments,
                     "checkpoint\n--external\n--json\n--control=/run/control.sock\n--name=a\n"
                     "--timeout=600000ms\n--max-pause=10000ms\n--leave-paused\n--base=b\npid:7\n");
}

static bool is_refused(const char *rest, const char *sentence)
{
    char text[256];
    snprintf(text, sizeof(text), "{\"vm\":1,\"name\":\"a\",%s}", rest);
    bool refused = read_order(text) == -EINVAL && strstr(reason.text, sentence);
    if (!refused)
        fprintf(stderr, "%s: %s\n", text, reason.text);
    return refused;
}

Test(checkpoint_order, no_line_is_ended_early)
{
    cr_assert(is_refused("\"vmstate\":\"/a\\n--api=/b\"", "end of a line"));
    cr_assert(is_refused("\"drives\":[\"/a\\n--api=/b\"]", "end of a line"));
    cr_assert(is_refused("\"labels\":[\"a=b\\n--full\"]", "printable"));
    cr_assert(is_refused("\"labels\":[\"a\\nb=c\"]", "printable"));
    cr_assert(is_refused("\"vmstate\":\"-\"", "absolute"));
    cr_assert(is_refused("\"drives\":[1]", "absolute"));
    cr_assert(is_refused("\"labels\":[\"=b\"]", "KEY=VALUE"));
    cr_assert(is_refused("\"labels\":[\"a\"]", "KEY=VALUE"));
    cr_assert(is_refused("\"labels\":{}", "KEY=VALUE"));
}

Test(checkpoint_order, what_excludes_each_other)
{
    cr_assert(is_refused("\"while_paused\":true,\"keep_armed\":true", "tracks no writes"));
    cr_assert(is_refused("\"live\":true,\"replace\":true", "leads to an image already"));
    cr_assert(is_refused("\"live\":true,\"while_paused\":true", "no image before its end"));
    cr_assert(is_refused("\"qmp\":\"/q\",\"vmstate\":\"/v\"", "QEMU hands its state"));
    cr_assert(is_refused("\"qmp\":\"q\"", "absolute"));
    cr_assert(is_refused("\"base\":\"b\"", "whose process \"pid\" names"));
    cr_assert(is_refused("\"pid\":7", "with \"base\""));
    cr_assert(is_refused("\"pid\":7,\"base\":\"b\"", "the number of a VM"));
    static const char *const without_vm[][2] = {
        {"", "the number of a VM"},
        {",\"pid\":7", "only with \"base\""},
        {",\"pid\":0,\"base\":\"b\"", "the number of a process"},
        {",\"pid\":7,\"base\":\"-b\"", "cannot name an image"},
        {",\"pid\":7,\"base\":\"b\",\"full\":true", "no engine tracks"},
        {",\"pid\":7,\"base\":\"b\",\"keep_armed\":true", "no engine tracks"},
        {",\"pid\":7,\"base\":\"b\",\"while_paused\":true", "no engine tracks"},
        {",\"pid\":7,\"base\":\"b\",\"live\":true", "no image before its end"},
        {",\"pid\":7,\"base\":\"b\",\"qmp\":\"/q\"", "the private mapping"},
    };
    for (unsigned i = 0; i < sizeof(without_vm) / sizeof(without_vm[0]); i++) {
        char text[256];
        snprintf(text, sizeof(text), "{\"name\":\"a\"%s}", without_vm[i][0]);
        cr_assert_eq(read_order(text), -EINVAL, "%s", text);
        cr_assert(strstr(reason.text, without_vm[i][1]), "%s: %s", text, reason.text);
    }
}

// One below the limit is taken, and nothing beyond it is cut.
Test(checkpoint_order, too_much)
{
    char text[FL_COMMAND_ARGS * 8 + 8192];
    bool refused = false;
    unsigned most = 0;
    for (unsigned drives = 1; drives < FL_COMMAND_ARGS + 8 && !refused; drives++) {
        size_t used = (size_t)snprintf(text, sizeof(text), "{\"vm\":1,\"name\":\"a\",\"drives\":[");
        for (unsigned i = 0; i < drives; i++)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s\"/d\"", i ? "," : "");
        snprintf(text + used, sizeof(text) - used, "]}");
        refused = read_order(text) != 0;
        most = refused ? most : drives;
    }
    cr_assert(refused && most > 32, "%u", most);
    for (unsigned length = 3000; length < 4200; length++) {
        snprintf(text, sizeof(text), "{\"vm\":1,\"name\":\"a\",\"vmstate\":\"/%0*d\"}", (int)length,
                 0);
        if (read_order(text) != 0)
            return;
        size_t used = strlen(order.arguments);
        cr_assert(used < sizeof(order.arguments) &&
                  strcmp(order.arguments + used - 3, "\n1\n") == 0);
    }
    cr_assert_fail("nothing is too long");
}
