// SPDX-License-Identifier: Apache-2.0
//
//   faultline-remote VERB NAME=VALUE... -- IMAGE...
//
// The verb has checked what the user wrote.
#include "tools/remote/remote.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/output.h"
#include "tools/cli/progress.h"

static const struct {
    const char *name;
    int (*run)(struct fl_remote *remote, const struct remote_arguments *args);
} verbs[] = {
    {"push", remote_push}, {"pull", remote_pull}, {"ls", remote_ls},
    {"rm", remote_rm},     {"gc", remote_gc},     {"verify", remote_verify},
};

static bool is(const char *word, const char *name, const char **ret_value)
{
    size_t length = strlen(name);
    *ret_value = word + length + 1;
    return strncmp(word, name, length) == 0 && word[length] == '=';
}

static bool take_text(struct remote_arguments *args, const char *word)
{
    const struct {
        const char *name;
        const char **to;
    } texts[] = {
        {"url", &args->url},
        {"store", &args->store},
        {"endpoint", &args->config.endpoint},
        {"region", &args->config.region},
        {"ca-file", &args->config.ca_file},
        {"credentials", &args->config.source.file},
        {"profile", &args->config.source.profile},
    };
    const char *value;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (is(word, texts[i].name, &value)) {
            *texts[i].to = value;
            return true;
        }
    }
    return false;
}

static bool take_flag(struct remote_arguments *args, const char *word)
{
    const struct {
        const char *word;
        bool *to;
    } flags[] = {
        {"json=1", &args->json},       {"names=1", &args->names},
        {"replace=1", &args->replace}, {"trust-store=1", &args->trust_store},
        {"dry-run=1", &args->dry_run}, {"quick=1", &args->quick},
    };
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (strcmp(word, flags[i].word) == 0) {
            *flags[i].to = true;
            return true;
        }
    }
    return false;
}

static bool take(struct remote_arguments *args, const char *word)
{
    const char *value;
    if (take_text(args, word) || take_flag(args, word))
        return true;
    if (is(word, "timeout-ms", &value))
        args->config.timeout_ms = strtoull(value, NULL, 10);
    else if (is(word, "retry-for-ms", &value))
        args->config.retry_for_ms = strtoull(value, NULL, 10);
    else if (is(word, "style", &value))
        args->config.style = strcmp(value, "path") == 0   ? FL_S3_STYLE_PATH
                             : strcmp(value, "host") == 0 ? FL_S3_STYLE_HOST
                                                          : FL_S3_STYLE_AUTO;
    else
        return false;
    return true;
}

static bool parse(int argc, char **argv, struct remote_arguments *args)
{
    if (argc < 3)
        return false;
    args->verb = argv[1];
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            args->images = &argv[i + 1];
            args->images_count = argc - i - 1;
            return args->url != NULL;
        }
        if (!take(args, argv[i]))
            return false;
    }
    return false;
}

// Its memory has keys, also where libraries have copied them.
static void hide_memory(void)
{
    setrlimit(RLIMIT_CORE, &(struct rlimit){.rlim_cur = 0, .rlim_max = 0});
    prctl(PR_SET_DUMPABLE, 0);
}

int main(int argc, char **argv)
{
    struct remote_arguments args = {.verb = NULL};
    struct fl_remote *remote;
    struct fl_error error;
    output_begin();
    hide_memory();
    if (!parse(argc, argv, &args)) {
        fputs("faultline-remote: 'faultline push', 'pull', 'ls', 'rm', 'gc' and 'verify' run it\n",
              stderr);
        return EXIT_USAGE;
    }
    args.config.cancelled = progress_interrupted;
    int status = EXIT_USAGE;
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(args.verb, verbs[i].name) != 0)
            continue;
        if (fl_remote_open(args.url, &args.config, &remote, &error) < 0) {
            status = cli_fail(args.verb, "%s", error.text);
            break;
        }
        status = verbs[i].run(remote, &args);
        fl_remote_close(remote);
    }
    return output_end(args.verb, status);
}
