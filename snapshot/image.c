// SPDX-License-Identifier: Apache-2.0
#include "snapshot/image.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/io.h"

// Returns the number of slots of the frame that an entry points to; -EBADMSG if it is not a valid
// entry or there is no such frame.
static int slots_at(const struct fl_image *image, uint64_t entry)
{
    if (!(entry & FL_ENTRY_STORED) || entry & FL_ENTRY_UNUSED ||
        fl_entry_pack(entry) >= image->header.packs)
        return -EBADMSG;
    const struct fl_pack *pack = image->packs[fl_entry_pack(entry)];
    int r = fl_pack_know_frame(pack, fl_entry_frame(entry));
    return r < 0 ? r : (int)fl_pack_frame_pages(pack, fl_entry_frame(entry));
}

// Checks every entry of a piece, once, so that fl_image_run can trust them all. Neighbours mostly
// share a frame, so the look-up is once for each frame and not for each page.
static int check_entries(const struct fl_image *image, const uint64_t *entries, uint64_t count)
{
    uint64_t place = 0;
    int slots = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (entries[i] == 0)
            continue;
        if (fl_entry_place(entries[i]) != place) {
            place = fl_entry_place(entries[i]);
            slots = slots_at(image, entries[i]);
        }
        if (slots < 0)
            return slots;
        if (fl_entry_slot(entries[i]) >= (uint32_t)slots)
            return -EBADMSG;
    }
    return 0;
}

static int compare_packs(const void *a, const void *b)
{
    uint64_t left = fl_pack_id(*(struct fl_pack *const *)a);
    uint64_t right = fl_pack_id(*(struct fl_pack *const *)b);
    return left < right ? -1 : left > right;
}

static int sort_packs(struct fl_image *image)
{
    uint32_t packs = image->header.packs;
    image->by_id = malloc((packs ? packs : 1) * sizeof(struct fl_pack *));
    if (!image->by_id)
        return -ENOMEM;
    if (packs > 0) {
        memcpy(image->by_id, image->packs, packs * sizeof(struct fl_pack *));
        qsort(image->by_id, packs, sizeof(struct fl_pack *), compare_packs);
    }
    return 0;
}

static void image_free(struct fl_image *image)
{
    for (uint32_t i = 0; i < image->header.packs; i++)
        fl_pack_unref(image->packs[i]);
    fl_lazy_fini(&image->map);
    free(image->piece);
    free(image->packs);
    free(image->by_id);
    fl_cleanup_close(&image->fd);
    if (image->offer)
        fl_cleanup_close(&image->offer->fd);
    free(image->offer);
    free(image);
}

// The header of a raw file has no content id.
static struct fl_image_id id_of(const struct fl_disk_image_header *header)
{
    static const struct fl_identity none;
    static atomic_uint_fast64_t last;
    struct fl_image_id id = {{0}};
    if (memcmp(&header->content_id, &none, sizeof(none)) == 0)
        id.word[0] = atomic_fetch_add(&last, 1) + 1;
    else
        memcpy(id.word, header->content_id.bytes, sizeof(id.word));
    return id;
}

// Takes over the packs, also if there is no memory.
static struct fl_image *new_image(const struct fl_disk_image_header *header, uint64_t entries,
                                  struct fl_pack **packs)
{
    static atomic_uint_fast64_t last_map = FL_PACK_ID_MAP;
    struct fl_image *image = calloc(1, sizeof(*image));
    if (!image) {
        for (uint32_t i = 0; i < header->packs; i++)
            fl_pack_unref(packs[i]);
        free(packs);
        return NULL;
    }
    atomic_init(&image->refs, 1);
    image->fd = -1;
    image->header = *header;
    image->entries = entries;
    image->id = id_of(header);
    image->map_id = atomic_fetch_add(&last_map, 1) + 1;
    image->piece_entries = FL_PIECE_ENTRIES;
    image->packs = packs;
    return image;
}

static int end_new(struct fl_image *image, int error, struct fl_image **ret_image)
{
    int r = error ? error : sort_packs(image);
    if (r < 0) {
        image_free(image);
        return r;
    }
    *ret_image = image;
    return 0;
}

int fl_image_new(const struct fl_disk_image_header *header, uint64_t entries, uint64_t *map,
                 struct fl_pack **packs, struct fl_image **ret_image)
{
    size_t bytes = entries * sizeof(*map);
    struct fl_image *image = new_image(header, entries, packs);
    if (!image) {
        fl_unmap(map, bytes);
        return -ENOMEM;
    }
    fl_lazy_init_whole(&image->map, map, bytes);
    return end_new(image, check_entries(image, map, entries), ret_image);
}

int fl_image_new_lazy(const struct fl_disk_image_header *header, uint64_t entries,
                      struct fl_disk_map_piece *piece, struct fl_pack **packs,
                      struct fl_image **ret_image)
{
    struct fl_image *image = new_image(header, entries, packs);
    if (!image) {
        free(piece);
        return -ENOMEM;
    }
    image->piece = piece;
    int r = fl_lazy_init(&image->map, entries * sizeof(uint64_t),
                         FL_PIECE_ENTRIES * sizeof(uint64_t), FL_PIECE_ZERO);
    for (uint32_t i = 0; r == 0 && i < header->pieces; i++)
        fl_lazy_set_unread(&image->map, piece[i].number);
    return end_new(image, r, ret_image);
}

// Its content has no id yet. Each of its names is the same content.
int fl_image_new_offered(const struct fl_disk_image_header *header, struct fl_offer_table *offer,
                         struct fl_pack **packs, struct fl_image **ret_image)
{
    struct fl_image *image = new_image(header, header->pages, packs);
    if (!image) {
        fl_cleanup_close(&offer->fd);
        free(offer);
        return -ENOMEM;
    }
    image->offer = offer;
    image->id = (struct fl_image_id){{offer->id, UINT64_MAX}};
    image->piece_entries = FL_OFFER_CHUNK;
    int r = fl_lazy_init(&image->map, image->entries * sizeof(uint64_t),
                         FL_OFFER_CHUNK * sizeof(uint64_t), FL_PIECE_UNREAD);
    return end_new(image, r, ret_image);
}

// --- pieces of the map ---

static uint32_t find_piece(const struct fl_image *image, uint64_t number)
{
    uint32_t low = 0;
    uint32_t high = image->header.pieces;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (image->piece[middle].number <= number)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// The file must have this piece.
static int read_entries(const struct fl_image *image, uint64_t number, uint64_t *ret_entries,
                        size_t bytes)
{
    if (image->offer)
        return fl_offer_table_read_chunk(image->offer, number, ret_entries);
    uint32_t at = find_piece(image, number);
    int r = fl_pread_full(image->fd, ret_entries, bytes,
                          sizeof(image->header) + at * image->map.piece_bytes);
    if (r == 0 && fl_checksum(ret_entries, bytes) != image->piece[at].checksum)
        r = -EBADMSG;
    return r;
}

static int read_piece(const struct fl_image *image, uint64_t number)
{
    size_t bytes = fl_lazy_piece_bytes(&image->map, number);
    FL_AUTO_FREE uint64_t *entries = malloc(bytes);
    if (!entries)
        return -ENOMEM;
    int r = read_entries(image, number, entries, bytes);
    if (r == 0)
        r = check_entries(image, entries, bytes / sizeof(*entries));
    if (r == 0)
        fl_lazy_put(&image->map, number, entries);
    return r;
}

static enum fl_piece_state state_at(const struct fl_image *image, uint64_t page)
{
    return fl_lazy_state(&image->map, page / image->piece_entries);
}

// The first page of the next piece, or `end`.
static uint64_t piece_end(const struct fl_image *image, uint64_t page, uint64_t end)
{
    uint64_t next = (page / image->piece_entries + 1) * image->piece_entries;
    return next < end ? next : end;
}

int fl_image_read_map(const struct fl_image *image, uint64_t page, uint64_t pages)
{
    uint64_t left = page < image->entries ? image->entries - page : 0;
    uint64_t end = page + (pages < left ? pages : left);
    int r = 0;
    for (; r == 0 && page < end; page = piece_end(image, page, end)) {
        if (state_at(image, page) == FL_PIECE_UNREAD)
            r = read_piece(image, page / image->piece_entries);
    }
    return r;
}

uint64_t fl_image_entry(const struct fl_image *image, uint64_t page)
{
    const uint64_t *entries = image->map.memory;
    assert(state_at(image, page) != FL_PIECE_UNREAD);
    return state_at(image, page) == FL_PIECE_THERE ? entries[page] : 0;
}

uint64_t fl_image_skip_zero(const struct fl_image *image, uint64_t page)
{
    while (page < image->entries && state_at(image, page) == FL_PIECE_ZERO)
        page = piece_end(image, page, image->entries);
    return page;
}

struct fl_image *fl_image_ref(struct fl_image *image)
{
    // Relaxed: the caller holds a reference already, so nothing is handed over here.
    atomic_fetch_add_explicit(&image->refs, 1, memory_order_relaxed);
    return image;
}

void fl_image_unref(struct fl_image *image)
{
    // Release pairs with the acquire of the thread that drops the last reference: all uses are over
    // before the free.
    if (image && atomic_fetch_sub_explicit(&image->refs, 1, memory_order_acq_rel) == 1)
        image_free(image);
}

struct fl_image_id fl_image_id(const struct fl_image *image)
{
    return image->id;
}

const char *fl_image_name(const struct fl_image *image)
{
    return image->header.name;
}

uint64_t fl_image_bytes(const struct fl_image *image)
{
    return image->header.bytes;
}

uint64_t fl_image_pages(const struct fl_image *image)
{
    return image->header.pages;
}

const uint8_t *fl_image_content_id(const struct fl_image *image)
{
    // Acquire pairs with the release of fl_image_settle.
    bool known = image->fd >= 0 &&
                 (!image->offer || atomic_load_explicit(&image->published, memory_order_acquire));
    return known ? image->header.content_id.bytes : NULL;
}

bool fl_image_is_offered(const struct fl_image *image)
{
    return image->offer != NULL;
}

// One thread at a time writes the id, and only before others may look at it.
int fl_image_settle(struct fl_image *image)
{
    static pthread_mutex_t settling = PTHREAD_MUTEX_INITIALIZER;
    struct fl_identity content_id;
    if (!image->offer || fl_image_content_id(image))
        return 0;
    int r = fl_offer_table_published(image->offer, &content_id);
    if (r < 0)
        return r;
    pthread_mutex_lock(&settling);
    if (!atomic_load(&image->published)) {
        image->header.content_id = content_id;
        atomic_store_explicit(&image->published, true, memory_order_release);
    }
    pthread_mutex_unlock(&settling);
    return 0;
}

bool fl_image_same(const struct fl_image *image, const struct fl_image *other)
{
    const uint8_t *id = fl_image_content_id(image);
    const uint8_t *other_id = fl_image_content_id(other);
    if (id && other_id)
        return memcmp(id, other_id, FL_IDENTITY_BYTES) == 0;
    return memcmp(&image->id, &other->id, sizeof(image->id)) == 0;
}

// Sees only what has been read of the map.
static uint32_t zero_run(const struct fl_image *image, uint64_t page, uint32_t limit)
{
    const uint64_t *entries = image->map.memory;
    uint64_t end = page + limit;
    uint64_t at = page;
    while (at < end && state_at(image, at) != FL_PIECE_UNREAD) {
        uint64_t next = piece_end(image, at, end);
        bool there = state_at(image, at) == FL_PIECE_THERE;
        while (there && at < next && entries[at] == 0)
            at++;
        if (there && at < next)
            break;
        at = next;
    }
    return (uint32_t)(at - page);
}

static uint32_t stored_run(const uint64_t *entry, uint32_t limit)
{
    uint64_t place = fl_entry_place(entry[0]);
    uint32_t n = 1;
    if (limit == 1)
        return 1;
    // The number after a frame's slot 511 is the next frame's slot 0: not the same place.
    while (n < limit && entry[n] == entry[0] + n && fl_entry_place(entry[n]) == place)
        n++;
    return n;
}

struct fl_run fl_image_run(const struct fl_image *image, uint64_t page, uint32_t max_pages)
{
    // A run of memory ends where memory does.
    uint64_t left = (page < image->header.pages ? image->header.pages : image->entries) - page;
    uint32_t limit = left < max_pages ? (uint32_t)left : max_pages;
    enum fl_piece_state state = state_at(image, page);
    if (state == FL_PIECE_UNREAD)
        return (struct fl_run){
            .pages = 1,
            .unread = true,
            .id = {.pack = image->map_id, .frame = (uint32_t)(page / image->piece_entries)}};
    const uint64_t *entry = (const uint64_t *)image->map.memory + page;
    if (state == FL_PIECE_ZERO || *entry == 0)
        return (struct fl_run){.pages = zero_run(image, page, limit), .zero = true};
    if (image->map.state) // the next piece may not be there
        limit = (uint32_t)(piece_end(image, page, page + limit) - page);
    return (struct fl_run){
        .pages = stored_run(entry, limit),
        .slot = fl_entry_slot(*entry),
        .id = {.pack = fl_pack_id(image->packs[fl_entry_pack(*entry)]),
               .frame = fl_entry_frame(*entry)},
    };
}

uint64_t *fl_image_copy_map(const struct fl_image *image)
{
    uint64_t pages = image->entries;
    uint64_t *map = fl_map_memory(pages * sizeof(*map));
    for (uint64_t page = 0; map && (page = fl_image_skip_zero(image, page)) < pages; page++)
        map[page] = fl_image_entry(image, page);
    return map;
}

static const struct fl_pack *find_pack(const struct fl_image *image, uint64_t id)
{
    uint32_t low = 0;
    uint32_t high = image->header.packs;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint64_t at = fl_pack_id(image->by_id[middle]);
        if (at == id)
            return image->by_id[middle];
        if (at < id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static bool is_map(const struct fl_image *image, struct fl_frame_id id)
{
    return id.pack == image->map_id && id.frame < image->map.pieces;
}

uint32_t fl_frame_pages(const struct fl_image *image, struct fl_frame_id id)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    if (is_map(image, id))
        return 1;
    return pack ? fl_pack_frame_pages(pack, id.frame) : 0;
}

int fl_frame_know(const struct fl_image *image, struct fl_frame_id id)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    return pack ? fl_pack_know_frame(pack, id.frame) : -EINVAL;
}

// The bytes in buf are no page's if the frame is a piece of the map: the image keeps the piece.
static int read_map_frame(const struct fl_image *image, struct fl_frame_id id, void *buf)
{
    memset(buf, 0, FL_PAGE_SIZE);
    return fl_image_read_map(image, (uint64_t)id.frame * image->piece_entries, 1);
}

int fl_frame_read(const struct fl_image *image, struct fl_frame_id id, void *buf)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    if (is_map(image, id))
        return read_map_frame(image, id, buf);
    return pack ? fl_pack_read_frame(pack, id.frame, buf) : -EINVAL;
}

// A raw file's image has no file of its own: its one pack is the file.
const char *fl_frame_path(const struct fl_image *image, struct fl_frame_id id, char *buf,
                          size_t size)
{
    char link[32];
    const struct fl_pack *pack = find_pack(image, id.pack);
    if (!pack && image->fd < 0 && image->header.packs > 0)
        pack = image->packs[0];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", pack ? fl_pack_fd(pack) : image->fd);
    ssize_t length = readlink(link, buf, size - 1);
    buf[length > 0 ? length : 0] = '\0';
    if (length <= 0)
        snprintf(buf, size, "-");
    return buf;
}

int fl_frame_place(const struct fl_image *image, struct fl_frame_id id,
                   struct fl_frame_place *ret_place)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    return pack ? fl_pack_frame_place(pack, id.frame, ret_place) : -EINVAL;
}

int fl_frame_unpack(const struct fl_image *image, struct fl_frame_id id, const void *stored,
                    void *buf)
{
    const struct fl_pack *pack = find_pack(image, id.pack);
    return pack ? fl_pack_unpack_frame(pack, id.frame, stored, buf) : -EINVAL;
}
