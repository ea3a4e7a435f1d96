// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/s3_credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/io.h"

struct fl_s3_credentials *fl_s3_credentials_new(void)
{
    struct fl_s3_credentials *memory =
        mmap(NULL, sizeof(*memory), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, sizeof(*memory), MADV_DONTDUMP);
    mlock(memory, sizeof(*memory)); // not onto a swap device, where that is allowed
    return memory;
}

void fl_s3_credentials_free(struct fl_s3_credentials *credentials)
{
    if (!credentials)
        return;
    OPENSSL_cleanse(credentials, sizeof(*credentials));
    munmap(credentials, sizeof(*credentials));
}

static int take(char *to, size_t size, const char *value)
{
    if (strlen(value) >= size || strpbrk(value, "\r\n"))
        return -EINVAL;
    strcpy(to, value);
    return 0;
}

// --- the environment ---

static int from_environment(struct fl_s3_credentials *credentials, struct fl_error *ret_error)
{
    const char *access = getenv("AWS_ACCESS_KEY_ID");
    const char *secret = getenv("AWS_SECRET_ACCESS_KEY");
    const char *token = getenv("AWS_SESSION_TOKEN");
    if (!access || !*access || !secret || !*secret)
        return -ENOKEY;
    if (take(credentials->access_key, sizeof(credentials->access_key), access) < 0 ||
        take(credentials->secret_key, sizeof(credentials->secret_key), secret) < 0 ||
        take(credentials->token, sizeof(credentials->token), token ? token : "") < 0)
        return fl_fail_plain(ret_error, -EINVAL,
                             "the credentials of the environment cannot be keys of S3");
    return 0;
}

// --- a file ---

enum { FILE_MAX_BYTES = 1 << 20 };

static char *trimmed(char *text)
{
    text += strspn(text, " \t\r");
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r", text[length - 1]))
        text[--length] = '\0';
    return text;
}

static bool is_profile(char *line, const char *profile)
{
    char *end = strchr(line, ']');
    if (end)
        *end = '\0';
    char *name = trimmed(line + 1);
    if (strncmp(name, "profile ", 8) == 0) // as the file "config" writes it
        name = trimmed(name + 8);
    return strcmp(name, profile) == 0;
}

static int take_line(char *line, struct fl_s3_credentials *credentials)
{
    char *equals = strchr(line, '=');
    if (!equals)
        return 0;
    *equals = '\0';
    char *name = trimmed(line);
    char *value = trimmed(equals + 1);
    if (strcmp(name, "aws_access_key_id") == 0)
        return take(credentials->access_key, sizeof(credentials->access_key), value);
    if (strcmp(name, "aws_secret_access_key") == 0)
        return take(credentials->secret_key, sizeof(credentials->secret_key), value);
    if (strcmp(name, "aws_session_token") == 0)
        return take(credentials->token, sizeof(credentials->token), value);
    return 0;
}

static int parse_file(char *text, const char *profile, struct fl_s3_credentials *credentials)
{
    bool within = false;
    int r = 0;
    for (char *line = text; line && r == 0;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        line = trimmed(line);
        if (*line == '[')
            within = is_profile(line, profile);
        else if (within && *line != '#' && *line != ';')
            r = take_line(line, credentials);
        line = next;
    }
    return r;
}

// In memory that is not dumped, as it has the keys.
static int read_file(const char *path, char **ret_text)
{
    FL_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char *text = fd < 0 ? NULL : fl_map_small_pages(FILE_MAX_BYTES);
    size_t count = 0;
    ssize_t got = 0;
    if (fd < 0)
        return -errno;
    if (!text)
        return -ENOMEM;
    while (count < FILE_MAX_BYTES - 1 &&
           (got = read(fd, text + count, FILE_MAX_BYTES - 1 - count)) > 0)
        count += (size_t)got;
    int r = got < 0 ? -errno : 0;
    if (r < 0)
        fl_unmap(text, FILE_MAX_BYTES);
    else
        *ret_text = text;
    return r;
}

int fl_s3_credentials_file(const char *path, const char *profile,
                           struct fl_s3_credentials *credentials, struct fl_error *ret_error)
{
    char *text = NULL;
    int r = read_file(path, &text);
    if (r < 0)
        return fl_fail(ret_error, r, "cannot read the credentials in %s", path);
    r = parse_file(text, profile, credentials);
    OPENSSL_cleanse(text, FILE_MAX_BYTES);
    fl_unmap(text, FILE_MAX_BYTES);
    if (r < 0)
        return fl_fail_plain(ret_error, r, "the profile '%s' in %s has no keys of S3", profile,
                             path);
    if (!*credentials->access_key || !*credentials->secret_key)
        return fl_fail_plain(ret_error, -ENOKEY, "there is no profile '%s' with keys in %s",
                             profile, path);
    return 0;
}

// --- all of them ---

static int from_home(const char *profile, struct fl_s3_credentials *credentials,
                     struct fl_error *ret_error)
{
    char path[4096];
    const char *named = getenv("AWS_SHARED_CREDENTIALS_FILE");
    const char *home = getenv("HOME");
    if (!named && !home)
        return -ENOKEY;
    int length = named ? snprintf(path, sizeof(path), "%s", named)
                       : snprintf(path, sizeof(path), "%s/.aws/credentials", home);
    if (length >= (int)sizeof(path))
        return -ENOKEY;
    int r = fl_s3_credentials_file(path, profile, credentials, ret_error);
    return r == -ENOENT ? -ENOKEY : r;
}

int fl_s3_credentials_find(const struct fl_s3_source *source, struct fl_s3_credentials *credentials,
                           struct fl_error *ret_error)
{
    const char *said = source->profile ? source->profile : getenv("AWS_PROFILE");
    const char *profile = said && *said ? said : "default";
    OPENSSL_cleanse(credentials, sizeof(*credentials));
    if (source->file)
        return fl_s3_credentials_file(source->file, profile, credentials, ret_error);
    // A profile that was asked for comes before the environment.
    int r = source->profile ? -ENOKEY : from_environment(credentials, ret_error);
    if (r == -ENOKEY)
        r = from_home(profile, credentials, ret_error);
    if (r == -ENOKEY && !source->profile)
        r = fl_s3_credentials_metadata(credentials, ret_error);
    if (r == -ENOKEY)
        return fl_fail_plain(ret_error, r,
                             "there are no credentials for S3: neither in the environment "
                             "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), nor of profile '%s' in a "
                             "credentials file, nor from this host's metadata",
                             profile);
    return r;
}
