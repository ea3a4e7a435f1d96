// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/s3_xml.h"

#include <errno.h>
#include <expat.h>
#include <stdbool.h>
#include <string.h>

enum { PATH_BYTES = 256, TEXT_BYTES = 4096 };

struct state {
    XML_Parser parser;
    int (*fn)(void *arg, const char *path, const char *value);
    void *arg;
    int result;
    char path[PATH_BYTES];
    char text[TEXT_BYTES];
    size_t length;
};

static void stop(struct state *state, int result)
{
    state->result = result;
    XML_StopParser(state->parser, XML_FALSE);
}

static void begin(void *arg, const char *name, const char **attributes)
{
    struct state *state = arg;
    size_t at = strlen(state->path);
    (void)attributes;
    state->length = 0;
    if (at + strlen(name) + 2 > sizeof(state->path)) {
        stop(state, -EBADMSG);
        return;
    }
    if (at > 0)
        state->path[at++] = '/';
    strcpy(state->path + at, name);
}

static void text(void *arg, const char *bytes, int count)
{
    struct state *state = arg;
    if (count < 0 || state->length + (size_t)count >= sizeof(state->text)) {
        stop(state, -EBADMSG);
        return;
    }
    memcpy(state->text + state->length, bytes, (size_t)count);
    state->length += (size_t)count;
}

static void end(void *arg, const char *name)
{
    struct state *state = arg;
    (void)name;
    state->text[state->length] = '\0';
    int r = state->fn(state->arg, state->path, state->text);
    if (r != 0) {
        stop(state, r);
        return;
    }
    state->length = 0;
    char *slash = strrchr(state->path, '/');
    *(slash ? slash : state->path) = '\0';
}

int fl_s3_xml(const char *bytes, size_t count,
              int (*fn)(void *arg, const char *path, const char *value), void *arg)
{
    struct state state = {.fn = fn, .arg = arg};
    state.parser = XML_ParserCreate(NULL);
    if (!state.parser)
        return -ENOMEM;
    XML_SetUserData(state.parser, &state);
    XML_SetElementHandler(state.parser, begin, end);
    XML_SetCharacterDataHandler(state.parser, text);
    bool parsed = XML_Parse(state.parser, bytes, (int)count, XML_TRUE) == XML_STATUS_OK;
    XML_ParserFree(state.parser);
    if (state.result != 0)
        return state.result;
    return parsed ? 0 : -EBADMSG;
}
