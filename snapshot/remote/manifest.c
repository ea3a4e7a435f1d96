// SPDX-License-Identifier: Apache-2.0
#include "snapshot/remote/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/format.h"

#define FORMAT "faultline-image"
enum { VERSION = 1 };

bool fl_hashed_key_valid(const char *key, const char *prefix)
{
    size_t length = strlen(prefix);
    return strlen(key) == length + 64 + 1 + 16 && strncmp(key, prefix, length) == 0 &&
           fl_is_hex(key + length, 64) && key[length + 64] == '.' &&
           fl_is_hex(key + length + 65, 16);
}

bool fl_data_key_valid(const char *key)
{
    return fl_hashed_key_valid(key, FL_DATA_PREFIX);
}

// --- writing ---

static json_t *file_json(const struct fl_remote_file *file)
{
    return json_pack("{s:s,s:s,s:I}", "sha256", file->sha256, "key", file->key, "bytes",
                     (json_int_t)file->bytes);
}

static json_t *packs_json(const struct fl_manifest *manifest)
{
    json_t *packs = json_array();
    for (size_t i = 0; i < manifest->packs_count; i++) {
        char id[20];
        snprintf(id, sizeof(id), "%016" PRIx64, manifest->packs[i].id);
        json_t *pack = file_json(&manifest->packs[i].file);
        json_object_set_new(pack, "id", json_string(id));
        if (json_array_append_new(packs, pack) < 0) {
            json_decref(packs);
            return NULL;
        }
    }
    return packs;
}

int fl_manifest_print(const struct fl_manifest *manifest, char **ret_text)
{
    json_t *object = json_pack("{s:i,s:s}", FORMAT, VERSION, "name", manifest->name);
    int r = 0;
    if (manifest->removed) {
        r |= json_object_set_new(object, "removed", json_true());
    } else {
        r |= json_object_set_new(object, "content_id", json_string(manifest->content_id));
        r |= json_object_set_new(object, "bytes", json_integer((json_int_t)manifest->bytes));
        r |= json_object_set_new(object, "created", json_integer((json_int_t)manifest->created));
        r |= json_object_set_new(object, "map", file_json(&manifest->map));
        if (*manifest->trace.sha256)
            r |= json_object_set_new(object, "trace", file_json(&manifest->trace));
        r |= json_object_set_new(object, "packs", packs_json(manifest));
    }
    *ret_text = r == 0 ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return *ret_text ? 0 : -ENOMEM;
}

// --- reading ---

static bool take_number(const json_t *object, const char *name, uint64_t high, uint64_t *ret)
{
    const json_t *value = json_object_get(object, name);
    json_int_t number = json_integer_value(value);
    *ret = (uint64_t)number;
    return json_is_integer(value) && number >= 0 && (uint64_t)number <= high;
}

static bool take_hex(const json_t *object, const char *name, char ret_hex[FL_HEX_BYTES])
{
    const char *value = json_string_value(json_object_get(object, name));
    if (!value || strlen(value) != 64 || !fl_is_hex(value, 64))
        return false;
    memcpy(ret_hex, value, FL_HEX_BYTES);
    return true;
}

static bool take_file(const json_t *object, struct fl_remote_file *file)
{
    const char *key = json_string_value(json_object_get(object, "key"));
    if (!take_hex(object, "sha256", file->sha256) || !key || !fl_data_key_valid(key) ||
        strncmp(key + strlen(FL_DATA_PREFIX), file->sha256, 64) != 0)
        return false;
    memcpy(file->key, key, sizeof(file->key));
    return take_number(object, "bytes", FL_IMAGE_BYTES_MAX, &file->bytes) && file->bytes > 0;
}

static bool take_pack(const json_t *object, struct fl_remote_pack *pack)
{
    const char *id = json_string_value(json_object_get(object, "id"));
    if (!id || strlen(id) != 16 || !fl_is_hex(id, 16))
        return false;
    pack->id = strtoull(id, NULL, 16);
    return pack->id != 0 && !(pack->id & FL_PACK_ID_RAW) && take_file(object, &pack->file);
}

static int take_packs(const json_t *object, struct fl_manifest *manifest)
{
    const json_t *packs = json_object_get(object, "packs");
    size_t count = json_array_size(packs);
    if (!json_is_array(packs) || count > FL_IMAGE_PACKS_MAX)
        return -EBADMSG;
    manifest->packs = calloc(count + 1, sizeof(*manifest->packs));
    if (!manifest->packs)
        return -ENOMEM;
    manifest->packs_count = count;
    for (size_t i = 0; i < count; i++) {
        if (!take_pack(json_array_get(packs, i), &manifest->packs[i]))
            return -EBADMSG;
    }
    return 0;
}

static int take_image(const json_t *object, struct fl_manifest *manifest)
{
    const json_t *trace = json_object_get(object, "trace");
    if (!take_hex(object, "content_id", manifest->content_id) ||
        !take_number(object, "bytes", FL_IMAGE_BYTES_MAX, &manifest->bytes) ||
        !take_number(object, "created", INT64_MAX, &manifest->created) ||
        !take_file(json_object_get(object, "map"), &manifest->map) ||
        (trace && !take_file(trace, &manifest->trace)))
        return -EBADMSG;
    return take_packs(object, manifest);
}

int fl_manifest_parse(const char *text, size_t bytes, const char *name,
                      struct fl_manifest *ret_manifest)
{
    struct fl_manifest manifest = {.packs = NULL};
    json_t *object = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    const char *said = json_string_value(json_object_get(object, "name"));
    json_int_t version = json_integer_value(json_object_get(object, FORMAT));
    int r = 0;
    if (version < 1 || !said || strcmp(said, name) != 0 || strlen(name) > FL_NAME_MAX)
        r = -EBADMSG;
    else if (version > VERSION)
        r = -EPROTONOSUPPORT;
    if (r == 0) {
        strcpy(manifest.name, name);
        manifest.removed = json_is_true(json_object_get(object, "removed"));
        r = manifest.removed ? 0 : take_image(object, &manifest);
    }
    json_decref(object);
    if (r < 0)
        fl_manifest_free(&manifest);
    else
        *ret_manifest = manifest;
    return r;
}

void fl_manifest_free(struct fl_manifest *manifest)
{
    free(manifest->packs);
    *manifest = (struct fl_manifest){.packs = NULL};
}
