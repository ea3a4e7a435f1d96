// SPDX-License-Identifier: Apache-2.0
#include "snapshot/rewrite.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "snapshot/image_rewrite.h"
#include "snapshot/index.h"
#include "snapshot/io.h"
#include "snapshot/move_list.h"
#include "snapshot/pack_list.h"
#include "snapshot/pack_name.h"

// A group ends with so many packs or bytes: more is not lost by a kill.
#define GROUP_PACKS FL_MOVES_MOST
#define GROUP_BYTES (UINT64_C(256) << 20)

struct group {
    struct fl_rewrite *rewrite;
    struct fl_move moves[GROUP_PACKS];
    uint64_t ids[GROUP_PACKS]; // of the new packs
    uint32_t count;
};

static struct fl_move *find_move(struct group *group, uint64_t from)
{
    for (uint32_t i = 0; i < group->count; i++) {
        if (fl_pack_id(group->moves[i].from) == from)
            return &group->moves[i];
    }
    return NULL;
}

static bool concerns(struct group *group, const struct fl_needed_image *image)
{
    for (uint32_t i = 0; i < image->packs_count; i++) {
        if (find_move(group, image->packs[i]))
            return true;
    }
    return false;
}

// Which of the moves each pack of the image has had; NULL: none.
static struct fl_move **moves_of(struct group *group, const struct fl_image *image)
{
    struct fl_move **moves = calloc((size_t)image->header.packs + 1, sizeof(*moves));
    for (uint32_t i = 0; moves && i < image->header.packs; i++)
        moves[i] = find_move(group, fl_pack_id(image->packs[i]));
    return moves;
}

// Returns how many entries were changed; marks the moves that were used.
static uint64_t change_map(const struct group *group, const struct fl_image *image,
                           struct fl_move *const *moves, uint64_t *map, bool *used)
{
    uint64_t changed = 0;
    for (uint64_t page = 0; (page = fl_image_skip_zero(image, page)) < image->entries; page++) {
        const struct fl_move *move = map[page] ? moves[fl_entry_pack(map[page])] : NULL;
        if (!move)
            continue;
        uint32_t number = (uint32_t)(move - group->moves);
        uint64_t entry = fl_move_entry(move, map[page], image->header.packs + number);
        if (entry == 0)
            continue;
        map[page] = entry;
        used[number] = true;
        changed++;
    }
    return changed;
}

static int replace_image(struct group *group, const struct fl_image *image, uint64_t *map,
                         const bool *used)
{
    struct fl_store *store = group->rewrite->store;
    struct fl_image *rewritten = NULL;
    uint64_t bytes;
    int r = fl_image_rewrite(store, image, map, group->ids, group->count, &rewritten);
    if (r == 0)
        r = fl_image_replace(store, image, rewritten, &bytes);
    fl_image_unref(rewritten);
    for (uint32_t i = 0; r == 0 && i < group->count; i++)
        group->moves[i].users += used[i];
    group->rewrite->result->images += r == 0;
    return r;
}

static int rewrite_open_image(struct group *group, const struct fl_image *image)
{
    bool used[GROUP_PACKS] = {false};
    uint64_t *map = fl_image_copy_map(image);
    struct fl_move **moves = moves_of(group, image);
    int r = map && moves ? 0 : -ENOMEM;
    if (r == 0 && change_map(group, image, moves, map, used) > 0)
        r = replace_image(group, image, map, used); // takes the map over
    else
        fl_unmap(map, image->entries * sizeof(*map));
    free(moves);
    return r;
}

// An image that was replaced meanwhile is looked at again; one that was removed needs nothing.
static int rewrite_image(struct group *group, const char *name)
{
    int r;
    do {
        struct fl_image *image;
        r = fl_image_open(group->rewrite->store->reader, name, &image);
        if (r == 0) {
            r = rewrite_open_image(group, image);
            fl_image_unref(image);
        }
    } while (r == -ESTALE);
    return r == -ENOENT ? 0 : r;
}

// An image that is damaged by now keeps what it has; verify reports it.
static bool only_this_image(int error)
{
    return error == -EBADMSG || error == -EPROTONOSUPPORT || error == -EOVERFLOW;
}

static int rewrite_images(struct group *group)
{
    const struct fl_needed *needed = group->rewrite->needed;
    int r = 0;
    for (size_t i = 0; r == 0 && i < needed->images_count; i++) {
        if (!concerns(group, &needed->images[i]))
            continue;
        r = rewrite_image(group, needed->images[i].name);
        if (only_this_image(r)) {
            group->rewrite->result->images_left++;
            r = 0;
        }
    }
    return r;
}

static void withdraw_pack(const struct group *group, uint64_t id)
{
    char name[FL_PACK_NAME_BYTES];
    fl_pack_name(id, name);
    unlinkat(group->rewrite->store->packs_fd, name, 0);
}

// The entries of the old pack become those of the new one. A page that the index has elsewhere
// stays there, beside its neighbours.
static int index_move(struct fl_store *store, struct fl_index *index, const struct fl_move *move)
{
    struct fl_pack *pack;
    int r = fl_pack_open(store->reader->registry, move->pack_id, &pack);
    if (r < 0)
        return r;
    int known = fl_index_has_pack(index, fl_pack_id(move->from));
    r = known == 1 ? fl_index_remove_pack(index, move->from) : known;
    if (r == 0 || r == -EUCLEAN)
        r = fl_index_add_pack(index, pack, FL_INDEX_KEEP_KNOWN);
    fl_pack_unref(pack);
    return r;
}

static void update_index(struct group *group)
{
    struct fl_store *store = group->rewrite->store;
    struct fl_rewrite_result *result = group->rewrite->result;
    struct fl_index *index = NULL;
    int r = fl_index_open_or_rebuild(store, &index, &result->index_rebuilt);
    for (uint32_t i = 0; r == 0 && i < group->count; i++) {
        if (group->moves[i].users > 0)
            r = index_move(store, index, &group->moves[i]);
    }
    fl_index_close(index);
    index = NULL;
    if (r == -EBADMSG) {
        r = fl_index_rebuild(store, &index);
        result->index_rebuilt |= r == 0;
        fl_index_close(index);
    }
    if (r < 0) {
        result->index_not_updated = true;
        result->index_error = r;
    }
}

static void count_move(struct fl_rewrite_result *result, const struct fl_move *move)
{
    result->packs_rewritten++;
    result->bad_frames += move->bad_frames;
    result->bytes_before += fl_pack_file_bytes(move->from);
    result->bytes_after += move->bytes;
    result->pages += move->pages;
    result->pages_left_out += fl_pack_pages(move->from) - move->pages;
}

static void free_moves(struct group *group)
{
    while (group->count > 0)
        fl_move_end(&group->moves[--group->count]);
}

// Gives the images their maps. If the process is killed meanwhile, or some images could not be
// written, the list stays for the next run.
static int move_images(struct group *group)
{
    struct fl_temp list;
    bool any = false;
    int r = fl_move_list_write(group->rewrite->store, group->moves, group->count, &list);
    if (r == 0)
        r = rewrite_images(group);
    for (uint32_t i = 0; i < group->count; i++) {
        if (group->moves[i].users > 0)
            count_move(group->rewrite->result, &group->moves[i]);
        else
            withdraw_pack(group, group->moves[i].pack_id);
        any |= group->moves[i].users > 0;
    }
    if (any)
        update_index(group);
    if (r < 0 && any)
        fl_move_list_leave(&list);
    else
        fl_move_list_end(&list);
    return r;
}

// Also after an error: then the new packs are taken back.
static int end_group(struct group *group, int error)
{
    int r = error;
    if (r == 0 && group->count > 0)
        r = move_images(group);
    for (uint32_t i = 0; error != 0 && i < group->count; i++)
        withdraw_pack(group, group->moves[i].pack_id);
    free_moves(group);
    return r;
}

static struct fl_compression how(const struct fl_rewrite *rewrite, const struct fl_pack *pack)
{
    return rewrite->compression.codec == FL_CODEC_RAW ? fl_recode_same(pack) : rewrite->compression;
}

static int recode(struct group *group, const struct fl_needed_pack *needed, uint64_t *ret_bytes)
{
    struct fl_rewrite *rewrite = group->rewrite;
    struct fl_move *move = &group->moves[group->count];
    struct fl_pack *pack;
    int r = fl_pack_open(rewrite->store->reader->registry, needed->id, &pack);
    if (r < 0)
        return r;
    const struct fl_recode_options options = {
        .compression = how(rewrite, pack),
        .keep = rewrite->compression.codec == FL_CODEC_RAW,
        .threads = rewrite->threads,
        .pace = &rewrite->pace,
        .done = rewrite->done,
        .total = rewrite->total,
        .progress = rewrite->progress,
    };
    rewrite->done += fl_pack_file_bytes(pack);
    r = fl_recode(rewrite->store, needed, &options, move);
    fl_pack_unref(pack);
    if (r < 0)
        return r;
    *ret_bytes += move->bytes;
    if (move->pack_id == 0) {
        rewrite->result->bad_frames += move->bad_frames;
        fl_move_end(move);
        return 0;
    }
    group->ids[group->count++] = move->pack_id;
    return 0;
}

int fl_rewrite_packs(struct fl_rewrite *rewrite, struct fl_needed_pack *const *packs, size_t count)
{
    struct group *group = calloc(1, sizeof(*group));
    uint64_t bytes = 0;
    int r = group ? 0 : -ENOMEM;
    if (group)
        group->rewrite = rewrite;
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = recode(group, packs[i], &bytes);
        if (r == -EBADMSG) // it is damaged by now; verify reports it
            r = 0;
        if (r == 0 && group->count < GROUP_PACKS && bytes < GROUP_BYTES && i + 1 < count)
            continue;
        r = end_group(group, r);
        bytes = 0;
    }
    free(group);
    return r;
}

// The packs stay, whoever needs them: an image may have been given one by the process that was
// killed. gc removes those that none needs.
static int resume_moves(struct group *group)
{
    struct fl_rewrite *rewrite = group->rewrite;
    uint64_t users[GROUP_PACKS];
    bool any = false;
    for (uint32_t i = 0; i < group->count; i++) {
        struct fl_move *move = &group->moves[i];
        group->ids[i] = move->pack_id;
        users[i] = move->users = fl_needed_pack(rewrite->needed, move->pack_id) != NULL;
    }
    int r = rewrite_images(group);
    for (uint32_t i = 0; i < group->count; i++) {
        if (group->moves[i].users > users[i])
            count_move(rewrite->result, &group->moves[i]);
        any |= group->moves[i].users > 0;
    }
    if (any)
        update_index(group);
    return r;
}

static int resume(void *arg, const char *name)
{
    struct group *group = arg;
    struct fl_temp list;
    int r = fl_move_list_take(group->rewrite->store, name, group->moves, &list);
    if (r < 0)
        return r == -EAGAIN ? 0 : r;
    group->count = (uint32_t)r;
    r = resume_moves(group);
    free_moves(group);
    if (r < 0)
        fl_move_list_leave(&list);
    else
        fl_move_list_end(&list);
    return r;
}

int fl_rewrite_resume(struct fl_rewrite *rewrite)
{
    struct group *group = calloc(1, sizeof(*group));
    if (!group)
        return -ENOMEM;
    group->rewrite = rewrite;
    int r = fl_each_file(rewrite->store->tmp_fd, resume, group);
    free(group);
    return r;
}
