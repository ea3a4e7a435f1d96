// SPDX-License-Identifier: Apache-2.0
#include "snapshot/image_tail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/image_file.h"
#include "snapshot/io.h"

uint64_t fl_companion_pages(uint64_t bytes)
{
    return (bytes + FL_PAGE_SIZE - 1) / FL_PAGE_SIZE;
}

bool fl_image_tail_empty(const struct fl_image_tail *tail)
{
    return !tail || (tail->footer.companions == 0 && tail->footer.label_bytes == 0 &&
                     tail->footer.parent[0] == '\0');
}

const struct fl_disk_companion *fl_image_tail_companions(const struct fl_image_tail *tail)
{
    return tail->about;
}

void fl_image_tail_free(struct fl_image_tail *tail)
{
    free(tail->about);
    tail->about = NULL;
}

static int add_labels(struct fl_image_tail *tail, const char *const *labels, size_t count)
{
    char *at = (char *)tail->about + tail->footer.companions * sizeof(struct fl_disk_companion);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = strlen(labels[i]) + 1;
        memcpy(at, labels[i], bytes);
        at += bytes;
    }
    return 0;
}

int fl_image_tail_make(const struct fl_disk_companion *companions, uint32_t companions_count,
                       const char *const *labels, size_t labels_count, const char *parent,
                       const uint8_t *parent_content_id, struct fl_image_tail *ret_tail)
{
    struct fl_image_tail tail = {.footer.companions = companions_count};
    size_t label_bytes = 0;
    for (size_t i = 0; i < labels_count; i++)
        label_bytes += strlen(labels[i]) + 1;
    if (label_bytes > FL_LABELS_BYTES_MAX)
        return -E2BIG;
    tail.footer.label_bytes = (uint32_t)label_bytes;
    for (uint32_t i = 0; i < companions_count; i++)
        tail.footer.companion_pages += fl_companion_pages(companions[i].bytes);
    if (parent) {
        strncpy(tail.footer.parent, parent, sizeof(tail.footer.parent) - 1);
        memcpy(tail.footer.parent_content_id.bytes, parent_content_id, FL_IDENTITY_BYTES);
    }
    size_t bytes = fl_image_about_bytes(&tail.footer);
    tail.about = malloc(bytes ? bytes : 1);
    if (!tail.about)
        return -ENOMEM;
    if (companions_count > 0)
        memcpy(tail.about, companions, companions_count * sizeof(*companions));
    *ret_tail = tail;
    return add_labels(ret_tail, labels, labels_count);
}

int fl_image_tail_read(const struct fl_image *image, struct fl_image_tail *ret_tail)
{
    struct fl_image_tail tail = {.about = NULL};
    int r = image->fd < 0 ? 0 : fl_image_file_footer(image->fd, &image->header, &tail.footer);
    if (r == 0 && image->fd >= 0)
        r = fl_image_file_about(image->fd, &tail.footer, &tail.about);
    if (r == 0)
        *ret_tail = tail;
    return r;
}

int fl_image_tail_write(struct fl_image_tail *tail, int fd, uint64_t *end)
{
    struct fl_disk_image_footer *footer = &tail->footer;
    size_t bytes = fl_image_about_bytes(footer);
    footer->about_checksum = fl_checksum(tail->about, bytes);
    footer->checksum = fl_checksum(footer, offsetof(struct fl_disk_image_footer, checksum));
    int r = fl_pwrite_full(fd, tail->about, bytes, *end);
    if (r == 0)
        r = fl_pwrite_full(fd, footer, sizeof(*footer), *end + bytes);
    *end += bytes + sizeof(*footer);
    return r;
}

// --- telling ---

bool fl_label_valid(const char *label)
{
    char key[FL_NAME_MAX + 1] = "";
    const char *equals = strchr(label, '=');
    if (!equals || (size_t)(equals - label) > FL_NAME_MAX)
        return false;
    memcpy(key, label, (size_t)(equals - label));
    for (const char *at = label; *at; at++) {
        if (*at < ' ' || *at > '~')
            return false;
    }
    return fl_name_valid(key);
}

int fl_label_compare(const char *left, const char *right)
{
    size_t a = strcspn(left, "=");
    size_t b = strcspn(right, "=");
    int order = memcmp(left, right, a < b ? a : b);
    return order ? order : (a > b) - (a < b);
}

static bool companion_valid(const struct fl_disk_companion *companion,
                            const struct fl_disk_companion *before)
{
    return memchr(companion->name, '\0', sizeof(companion->name)) &&
           fl_name_valid(companion->name) && companion->bytes <= FL_COMPANION_BYTES_MAX &&
           (!before || strcmp(before->name, companion->name) < 0);
}

static int tell_companions(const struct fl_image_tail *tail, struct fl_image_about *about)
{
    const struct fl_disk_companion *disk = tail->about;
    uint32_t count = tail->footer.companions;
    uint64_t pages = 0;
    about->companions = calloc(count ? count : 1, sizeof(*about->companions));
    if (!about->companions)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct fl_companion *companion = &about->companions[about->companions_count++];
        if (!companion_valid(&disk[i], i ? &disk[i - 1] : NULL))
            return -EBADMSG;
        memcpy(companion->name, disk[i].name, sizeof(companion->name));
        memcpy(companion->content_id, disk[i].content_id.bytes, sizeof(companion->content_id));
        companion->bytes = disk[i].bytes;
        pages += fl_companion_pages(disk[i].bytes);
    }
    return pages == tail->footer.companion_pages ? 0 : -EBADMSG;
}

static int tell_label(struct fl_image_about *about, const char *label)
{
    size_t count = about->labels_count;
    if (!fl_label_valid(label) ||
        (count > 0 && fl_label_compare(about->labels[count - 1], label) >= 0))
        return -EBADMSG;
    char **grown = realloc(about->labels, (count + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    about->labels = grown;
    grown[count] = strdup(label);
    about->labels_count += grown[count] != NULL;
    return grown[count] ? 0 : -ENOMEM;
}

static int tell_labels(const struct fl_image_tail *tail, struct fl_image_about *about)
{
    const char *at =
        (const char *)tail->about + tail->footer.companions * sizeof(struct fl_disk_companion);
    size_t left = tail->footer.label_bytes;
    int r = 0;
    while (r == 0 && left > 0) {
        const char *end = memchr(at, '\0', left);
        r = end ? tell_label(about, at) : -EBADMSG;
        size_t bytes = end ? (size_t)(end - at) + 1 : left;
        at += bytes;
        left -= bytes;
    }
    return r;
}

int fl_image_tail_tell(const struct fl_image_tail *tail, struct fl_image_about *ret_about)
{
    struct fl_image_about about = {.companions = NULL};
    memcpy(about.parent, tail->footer.parent, sizeof(about.parent));
    memcpy(about.parent_content_id, tail->footer.parent_content_id.bytes,
           sizeof(about.parent_content_id));
    int r = tell_companions(tail, &about);
    if (r == 0)
        r = tell_labels(tail, &about);
    if (r < 0)
        fl_image_about_free(&about);
    else
        *ret_about = about;
    return r;
}

void fl_image_about_free(struct fl_image_about *about)
{
    for (size_t i = 0; i < about->labels_count; i++)
        free(about->labels[i]);
    free(about->labels);
    free(about->companions);
    *about = (struct fl_image_about){.companions = NULL};
}
