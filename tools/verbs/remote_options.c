// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/remote_options.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli/cli.h"

static const char *take_style(void *place, const char *value)
{
    if (strcmp(value, "auto") != 0 && strcmp(value, "path") != 0 && strcmp(value, "host") != 0)
        return "is not auto, path or host";
    *(const char **)place = value;
    return NULL;
}

const struct cli_option remote_server_options[] = {
    CLI_TEXT(struct remote_options, endpoint, .name = "endpoint", .value = "URL",
             .otherwise = "AWS", .environment = "AWS_ENDPOINT_URL_S3",
             .help = "the server: https://HOST[:PORT], or http:// without TLS"),
    CLI_TEXT(struct remote_options, region, .name = "region", .value = "REGION",
             .otherwise = "us-east-1", .environment = "AWS_REGION", .help = "the bucket's region"),
    CLI_OTHER(struct remote_options, style, take_style, .name = "bucket-in", .value = "WHERE",
              .choices = "auto|path|host", .preset = "auto",
              .help = "where requests name the bucket: in the path, or in the name of the host. "
                      "auto: host at AWS, path at an endpoint that is given"),
    CLI_TEXT(struct remote_options, ca_file, .name = "ca-file", .value = "FILE", .hint = CLI_FILE,
             .otherwise = "the system's", .environment = "AWS_CA_BUNDLE",
             .help = "certificates that the server's is checked against"),
    CLI_TEXT(struct remote_options, credentials, .name = "credentials", .value = "FILE",
             .hint = CLI_FILE,
             .otherwise = "the environment, ~/.aws/credentials, then the host's metadata",
             .help = "a file with the keys, as ~/.aws/credentials"),
    CLI_TEXT(struct remote_options, profile, .name = "profile", .value = "NAME",
             .otherwise = "$AWS_PROFILE, then default",
             .help = "the part of that file that has the keys"),
    CLI_TIME_MS(struct remote_options, timeout_ms, .name = "timeout", .value = "TIME", .low = 100,
                .high = HOUR_MS, .preset = "20s",
                .help = "give a request up that has made no progress for so long, and try again"),
    CLI_TIME_MS(struct remote_options, retry_for_ms, .name = "retry-for", .value = "TIME", .low = 0,
                .high = HOUR_MS, .preset = "2m",
                .help = "try a request that fails again for so long, then end with an error"),
    CLI_END,
};

static int run_beside(const char *directory, char *const args[])
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/faultline-remote", directory) < (int)sizeof(path))
        execv(path, args);
    return errno;
}

struct words {
    char **word;
    int count;
    bool failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct words *words, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&words->word[words->count], format, arguments) < 0)
        words->failed = true;
    else
        words->count++;
    va_end(arguments);
}

static void add_text(struct words *words, const char *name, const char *value)
{
    if (value)
        add(words, "%s=%s", name, value);
}

static void add_options(struct words *words, const struct remote_options *options)
{
    add_text(words, "url", options->url);
    add_text(words, "endpoint", options->endpoint);
    add_text(words, "region", options->region);
    add_text(words, "style", options->style);
    add_text(words, "ca-file", options->ca_file);
    add_text(words, "credentials", options->credentials);
    add_text(words, "profile", options->profile);
    add(words, "timeout-ms=%llu", (unsigned long long)options->timeout_ms);
    add(words, "retry-for-ms=%llu", (unsigned long long)options->retry_for_ms);
}

int remote_run(const char *verb, const struct remote_options *options, const char *const *extra,
               int extra_count, char *const *images, int images_count)
{
    enum { OPTIONS_MAX = 16 };
    char here[PATH_MAX];
    struct words words = {
        .word = calloc((size_t)(OPTIONS_MAX + extra_count + images_count), sizeof(char *))};
    if (!words.word)
        return cli_fail(verb, "there is no memory");
    add(&words, "faultline-remote");
    add(&words, "%s", verb);
    add_options(&words, options);
    for (int i = 0; i < extra_count; i++) {
        if (extra[i])
            add(&words, "%s", extra[i]);
    }
    add(&words, "--");
    for (int i = 0; i < images_count; i++)
        add(&words, "%s", images[i]);
    if (words.failed)
        return cli_fail(verb, "there is no memory");
    ssize_t length = readlink("/proc/self/exe", here, sizeof(here) - 1);
    if (length > 0) {
        here[length] = '\0';
        run_beside(dirname(here), words.word);
    }
    int error = run_beside(FAULTLINE_LIBEXEC, words.word);
    return cli_fail_errno(verb, error, "cannot run " FAULTLINE_LIBEXEC "/faultline-remote");
}
