// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/option.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/cli/cli.h"

size_t cli_list_options(const struct cli_option *options, struct cli_place ret_list[])
{
    size_t count = 0;
    for (const struct cli_option *option = options; option->name || option->group; option++) {
        const struct cli_option *inner = option->group ? option->group : option;
        size_t base = option->group ? option->at : 0;
        do {
            if (count == CLI_OPTIONS_MAX)
                abort(); // at every start of the verb
            ret_list[count++] = (struct cli_place){inner, base + inner->at};
            inner++;
        } while (option->group && inner->name);
    }
    return count;
}

// Reads a number or a count.
static bool take_number(const struct cli_option *option, void *place, const char *value)
{
    uint64_t number = 0;
    if (cli_parse_number(value, option->low, option->high, &number) < 0)
        return false;
    if (option->kind == CLI_KIND_COUNT)
        *(unsigned *)place = (unsigned)number;
    else
        *(uint64_t *)place = number;
    return true;
}

static bool take_time(const struct cli_option *option, void *place, const char *value,
                      char ret_wrong[CLI_WRONG_BYTES])
{
    uint64_t plain_ms = option->kind == CLI_KIND_S ? 1000 : 1;
    char low[CLI_TIME_BYTES];
    char high[CLI_TIME_BYTES];
    uint64_t ms = 0;
    int error = cli_parse_time(value, plain_ms, &ms);
    if (error == -EINVAL || (!error && ms % plain_ms != 0)) {
        snprintf(ret_wrong, CLI_WRONG_BYTES, "is not a time such as %s90s, 30m or 1h",
                 plain_ms == 1 ? "500ms, " : "");
        return false;
    }
    if (error || ms / plain_ms < option->low || ms / plain_ms > option->high) {
        snprintf(ret_wrong, CLI_WRONG_BYTES, "is not from %s to %s",
                 cli_format_time(option->low * plain_ms, low, sizeof(low)),
                 cli_format_time(option->high * plain_ms, high, sizeof(high)));
        return false;
    }
    *(uint64_t *)place = ms / plain_ms;
    return true;
}

bool cli_take_value(const struct cli_option *option, void *place, const char *value,
                    char ret_wrong[CLI_WRONG_BYTES])
{
    const char *wrong = NULL;
    switch (option->kind) {
    case CLI_KIND_FLAG:
        *(bool *)place = true;
        break;
    case CLI_KIND_TEXT:
        *(const char **)place = value;
        break;
    case CLI_KIND_SIZE:
        if (cli_parse_size(value, place) < 0)
            wrong = "is not a size, such as 512M or 4G";
        break;
    case CLI_KIND_NUMBER:
    case CLI_KIND_COUNT:
        if (!take_number(option, place, value)) {
            snprintf(ret_wrong, CLI_WRONG_BYTES, "is not a number from %" PRIu64 " to %" PRIu64,
                     option->low, option->high);
            return false;
        }
        break;
    case CLI_KIND_MS:
    case CLI_KIND_S:
        return take_time(option, place, value, ret_wrong);
    case CLI_KIND_OTHER:
        wrong = option->take(place, value);
        break;
    }
    if (wrong)
        snprintf(ret_wrong, CLI_WRONG_BYTES, "%s", wrong);
    return !wrong;
}
