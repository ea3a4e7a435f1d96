// SPDX-License-Identifier: Apache-2.0
//
// Every structure of the store that is on disk. docs/store-format.md says the same in words.
//
//   STORE  := faultline-store  packs/ID.pack*  images/NAME.img*  traces/NAME.trace*  index/ (LMDB)
//             bad-frames  tmp/  lock
//   PACK   := pack_header  frame-bytes*  frame*  identity[pages]  frame_piece*  pack_footer
//   IMAGE  := image_header  entry[8192]*  map_piece*  pack-id[packs]
//             (companion*  label*  image_footer)
//   TRACE  := trace_header  trace_entry[count]
//   bad-frames := bad_header  bad_frame[count]
//   images/NAME.live* := offer_head  pack-id[packs]
//   images/ID.table*  := offer_table ... (see struct fl_disk_offer_table)
//
// All integers are little-endian and all fields have fixed widths. No byte of a file is trusted:
// code that reads one of these structures checks the checksum first and then the bounds of every
// field. A field named `zero` is 0.
#ifndef FAULTLINE_SNAPSHOT_FORMAT_H
#define FAULTLINE_SNAPSHOT_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "snapshot/codec.h"
#include "snapshot/read.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "the structures are read in place, so the host has to be little-endian");

// The directories of a store. The last is made with the first trace.
#define FL_PACKS_DIR "packs"
#define FL_IMAGES_DIR "images"
#define FL_INDEX_DIR "index"
#define FL_TMP_DIR "tmp"
#define FL_TRACE_DIR "traces"

// The newest version of each kind of file, which stands in its header. The version of the store as
// a whole stands in the marker file. Packs and images of version 1 can be read as well; their
// tables are checked as a whole when they are opened. An image that has nothing besides memory, and
// a pack without a zstd frame, are written as version FL_..._VERSION_PLAIN, so that an earlier
// program can read them.
#define FL_PACK_VERSION 3u
#define FL_PACK_VERSION_PLAIN 2u
#define FL_IMAGE_VERSION 3u
#define FL_IMAGE_VERSION_PLAIN 2u
#define FL_TRACE_VERSION 1u
#define FL_BAD_VERSION 1u
#define FL_MOVES_VERSION 1u
#define FL_MARKER_NAME "faultline-store"
#define FL_MARKER_TEXT "faultline-store 1\n"
#define FL_IDENTITY_BYTES 32u // SHA-256 of the page's 4096 bytes
#define FL_MAGIC_BYTES 8u

static const uint8_t fl_magic_pack[FL_MAGIC_BYTES] = {'F', 'L', 'P', 'A', 'C', 'K', '\r', '\n'};
static const uint8_t fl_magic_footer[FL_MAGIC_BYTES] = {'F', 'L', 'P', 'F', 'O', 'O', 'T', '\n'};
static const uint8_t fl_magic_image[FL_MAGIC_BYTES] = {'F', 'L', 'I', 'M', 'A', 'G', 'E', '\n'};

static const uint8_t fl_magic_trace[FL_MAGIC_BYTES] = {'F', 'L', 'T', 'R', 'A', 'C', 'E', '\n'};
static const uint8_t fl_magic_bad[FL_MAGIC_BYTES] = {'F', 'L', 'B', 'A', 'D', 'F', 'R', '\n'};
static const uint8_t fl_magic_moves[FL_MAGIC_BYTES] = {'F', 'L', 'M', 'O', 'V', 'E', 'S', '\n'};

struct fl_identity {
    uint8_t bytes[FL_IDENTITY_BYTES];
};

struct fl_disk_pack_header {
    uint8_t magic[FL_MAGIC_BYTES]; // fl_magic_pack
    uint32_t version;
    uint32_t zero;
    uint64_t pack_id;  // random, top bit clear, not 0; the same as in the file's name
    uint64_t checksum; // XXH3-64 of the bytes before
};
static_assert(sizeof(struct fl_disk_pack_header) == 32, "layout");

struct fl_disk_frame {
    uint64_t offset;   // of the stored bytes, from the start of the pack
    uint64_t checksum; // XXH3-64 of the stored bytes
    uint32_t stored;   // bytes; pages * 4096 if raw, less if compressed
    uint16_t pages;    // 1 to FL_FRAME_PAGES_MAX
    uint8_t codec;     // enum fl_codec
    uint8_t zero;
};
static_assert(sizeof(struct fl_disk_frame) == 24, "layout");

// Describes one piece of the frame table, FL_PIECE_FRAMES entries (the last piece may be shorter),
// so that a piece can be checked without the others.
#define FL_PIECE_FRAMES 2048u
struct fl_disk_frame_piece {
    uint64_t first_page; // number of its first frame's first page among the pack's pages
    uint64_t checksum;   // XXH3-64 of these entries
};
static_assert(sizeof(struct fl_disk_frame_piece) == 16, "layout");

// The last bytes of a pack. The frame table starts at table_offset. The identities (in the order of
// frame and slot) follow it, then one fl_disk_frame_piece for each piece of the table, then the
// footer. Version 1 has no pieces.
struct fl_disk_pack_footer {
    uint8_t magic[FL_MAGIC_BYTES]; // fl_magic_footer
    uint32_t version;
    uint32_t frames;
    uint64_t pack_id;
    uint64_t pages; // the sum over the frames
    uint64_t table_offset;
    uint64_t table_checksum;    // XXH3-64 of the pieces; version 1: of the frame table
    uint64_t identity_checksum; // XXH3-64 of the identities
    uint64_t checksum;          // XXH3-64 of the footer's bytes before
};
static_assert(sizeof(struct fl_disk_pack_footer) == 64, "layout");

struct fl_disk_image_header {
    uint8_t magic[FL_MAGIC_BYTES]; // fl_magic_image
    uint32_t version;
    uint32_t packs;   // entries of the pack table
    uint64_t bytes;   // of the memory file, exact, at least 1
    uint64_t pages;   // bytes rounded up
    uint64_t created; // seconds since the epoch
    uint64_t zero_pages;
    uint64_t stored_pages;         // written for this image
    uint64_t duplicate_pages;      // of pages written for this image
    uint64_t shared_pages;         // with packs that were there before
    uint64_t declined_pages;       // of stored_pages: known, but stored again against fragmentation
    struct fl_identity content_id; // SHA-256 of the identities of all pages, zero pages included
    uint64_t map_checksum;         // XXH3-64 of the list of pieces; version 1: of the map
    uint64_t pack_table_checksum;  // XXH3-64 of the pack table
    char name[FL_NAME_MAX + 4];    // padded with NUL
    uint32_t pieces;               // of the map that the file has; version 1: 0
    uint64_t checksum;             // XXH3-64 of the bytes before
};
static_assert(sizeof(struct fl_disk_image_header) == 272, "layout");

// The last bytes of an image of version 3. Before it stand its companions, then its labels, each
// with a NUL at its end.
struct fl_disk_image_footer {
    uint64_t companion_pages; // the map has so many entries behind those of memory
    uint32_t companions;      // at most FL_COMPANIONS_MAX
    uint32_t label_bytes;     // at most FL_LABELS_BYTES_MAX
    struct fl_identity parent_content_id;
    char parent[FL_NAME_MAX + 8]; // the image that it was made from, padded with NUL; "": none
    uint64_t about_checksum;      // XXH3-64 of the companions and the labels
    uint64_t checksum;            // XXH3-64 of the footer's bytes before
};
static_assert(sizeof(struct fl_disk_image_footer) == 200, "layout");

// A file that belongs to the image. Its pages are behind those of memory, and behind those of the
// companions before it; they count neither as pages of the image nor for its content id.
struct fl_disk_companion {
    uint64_t bytes;                // exact, at most FL_COMPANION_BYTES_MAX
    struct fl_identity content_id; // SHA-256 of the identities of its pages
    char name[FL_NAME_MAX + 8];    // padded with NUL; each is larger than the one before
};
static_assert(sizeof(struct fl_disk_companion) == 176, "layout");

// The map is cut into pieces of FL_PIECE_ENTRIES pages (32 MiB of memory); the last one may be
// shorter. The file has the pieces that are not all zero, in order, and this structure for each.
#define FL_PIECE_ENTRIES 8192u
struct fl_disk_map_piece {
    uint64_t number;   // first page / FL_PIECE_ENTRIES
    uint64_t checksum; // XXH3-64 of its entries
};
static_assert(sizeof(struct fl_disk_map_piece) == 16, "layout");

// A map entry is 0 for a zero page. Otherwise it has, from the low end: slot (9 bits), frame (32),
// index into the pack table (16), six bits that are 0, and bit 63, which is set. Consecutive slots
// of a frame are consecutive numbers.
#define FL_ENTRY_SLOT_BITS 9u
#define FL_ENTRY_PACK_SHIFT 41u
#define FL_ENTRY_STORED (UINT64_C(1) << 63)
#define FL_ENTRY_UNUSED (UINT64_C(0x3f) << 57)
static_assert(FL_FRAME_PAGES_MAX == 1u << FL_ENTRY_SLOT_BITS, "a slot fits its bits");

// The most that the format can hold.
#define FL_IMAGE_PACKS_MAX 65536u
#define FL_IMAGE_BYTES_MAX (UINT64_C(1) << 48)
// These bits mark pack ids that are never on disk: those of raw files, and those of the maps of
// open images, whose pieces are read as frames.
#define FL_PACK_ID_RAW (UINT64_C(1) << 63)
#define FL_PACK_ID_MAP (UINT64_C(3) << 62)

static inline uint64_t fl_entry(uint32_t pack, uint32_t frame, uint32_t slot)
{
    // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): it loses track of the cast
    return FL_ENTRY_STORED | (uint64_t)pack << FL_ENTRY_PACK_SHIFT |
           (uint64_t)frame << FL_ENTRY_SLOT_BITS | slot;
}

static inline uint32_t fl_entry_slot(uint64_t entry)
{
    return (uint32_t)(entry & (FL_FRAME_PAGES_MAX - 1));
}

static inline uint32_t fl_entry_frame(uint64_t entry)
{
    return (uint32_t)(entry >> FL_ENTRY_SLOT_BITS);
}

static inline uint32_t fl_entry_pack(uint64_t entry)
{
    return (uint32_t)(entry >> FL_ENTRY_PACK_SHIFT) & (FL_IMAGE_PACKS_MAX - 1);
}

// Returns the entry without its slot, which is the same for all pages of a frame.
static inline uint64_t fl_entry_place(uint64_t entry)
{
    return entry & ~(uint64_t)(FL_FRAME_PAGES_MAX - 1);
}

// The header of a trace's file. A trace has the pages that VMs touched after attach, merged from
// recordings.
struct fl_disk_trace_header {
    uint8_t magic[FL_MAGIC_BYTES]; // fl_magic_trace
    uint32_t version;
    uint32_t runs;                 // recordings it was merged from, at least 1
    uint64_t pages;                // of the image
    uint64_t count;                // entries, 1 to pages
    struct fl_identity content_id; // of the image; the trace says nothing about other content
    uint64_t entries_checksum;     // XXH3-64 of the entries
    char name[FL_NAME_MAX + 8];    // of the image, padded with NUL
    uint64_t checksum;             // XXH3-64 of the bytes before
};
static_assert(sizeof(struct fl_disk_trace_header) == 216, "layout");

// A page of a trace. The fields are sums, not means, so that the result of merging does not depend
// on its order. In the file the entries come in the order of replay (fl_trace_compare), each page
// at most once.
struct fl_disk_trace_entry {
    uint64_t page;      // below pages
    uint64_t positions; // the sum of its places in the recordings: index * 2^32 / pages recorded
    uint64_t ms;        // the sum of the ms after attach
    uint32_t seen;      // recordings that have it, 1 to runs
    uint32_t zero;
};
static_assert(sizeof(struct fl_disk_trace_entry) == 32, "layout");

// The header of the list of frames that verify or pack has found bad. The list is a hint: without
// it these frames are found again.
struct fl_disk_bad_header {
    uint8_t magic[FL_MAGIC_BYTES]; // fl_magic_bad
    uint32_t version;
    uint32_t zero;
    uint64_t count;
    uint64_t entries_checksum; // XXH3-64 of the entries
    uint64_t checksum;         // XXH3-64 of the bytes before
};
static_assert(sizeof(struct fl_disk_bad_header) == 40, "layout");

// A bad frame. Each comes at most once; they are sorted by pack and frame.
struct fl_disk_bad_frame {
    uint64_t pack_id;
    uint32_t frame;
    uint32_t state; // enum fl_bad_state
};
static_assert(sizeof(struct fl_disk_bad_frame) == 16, "layout");
#define FL_BAD_NAME "bad-frames"
// FL_BAD_UNUSED: no image refers to it any more, and none will.
enum fl_bad_state { FL_BAD_NEEDED = 0, FL_BAD_UNUSED = 1 };

// The header of a list of packs that were rewritten, in tmp/. Of each pack it has this, then 8
// bytes a frame of the old pack (struct fl_moved_frame), then a bit a page of it, in words.
struct fl_disk_moves {
    uint8_t magic[FL_MAGIC_BYTES]; // fl_magic_moves
    uint32_t version;
    uint32_t count;
    uint64_t moves_checksum; // XXH3-64 of what follows
    uint64_t checksum;       // XXH3-64 of the bytes before
};
static_assert(sizeof(struct fl_disk_moves) == 32, "layout");

struct fl_disk_move {
    uint64_t from, to; // pack ids
    uint64_t pages;    // of the old pack
    uint32_t frames;   // of the old pack
    uint32_t zero;
};
static_assert(sizeof(struct fl_disk_move) == 32, "layout");

// An image on offer: it can be restored while it is still packed. A process holds the lock
// (flock) of its table for as long as it packs: what is there without that lock is left over. These
// files are not flushed, and belong to one run of the system. In every version the id is where it
// is in this one, and the table is named and locked so: whoever does not know the rest of a newer
// one can see what is left of it after a downgrade.
#define FL_OFFER_VERSION 1u
#define FL_OFFER_SUFFIX ".live"
#define FL_OFFER_TABLE_SUFFIX ".table"
static const uint8_t fl_magic_offer[FL_MAGIC_BYTES] = {'F', 'L', 'O', 'F', 'F', 'E', 'R', '\n'};
static const uint8_t fl_magic_table[FL_MAGIC_BYTES] = {'F', 'L', 'T', 'A', 'B', 'L', 'E', '\n'};

// A name of the image. Its table may have several. The pack table follows.
struct fl_disk_offer_head {
    uint8_t magic[FL_MAGIC_BYTES]; // fl_magic_offer
    uint32_t version;
    uint32_t packs;               // at least 1: the first is the pack that is being written
    uint64_t id;                  // of the table, random; in its file's name
    uint64_t bytes;               // of the memory
    uint64_t pages;               // bytes rounded up
    uint64_t pack_table_checksum; // XXH3-64 of the pack table
    char name[FL_NAME_MAX + 8];   // padded with NUL
    char pack_file[64];           // of that pack, in tmp/ until it is published; padded with NUL
    uint64_t checksum;            // XXH3-64 of the bytes before
};
static_assert(sizeof(struct fl_disk_offer_head) == 256, "layout");

// The header of a table. The sections follow, each at a multiple of FL_OFFER_ALIGN:
//   state at FL_OFFER_STATE_AT;  wanted: a byte for each chunk;  offer_chunk[chunks];
//   offer_frame[frames];  entry[pages];  offer_companion[companions], then their bytes.
// A chunk is FL_OFFER_CHUNK pages, and the last may be shorter. All but the header and the
// companions is zero at first. What a chunk refers to is written before its own structure is.
#define FL_OFFER_CHUNK 512u
#define FL_OFFER_ALIGN 4096u
#define FL_OFFER_STATE_AT 1024u
struct fl_disk_offer_table {
    uint8_t magic[FL_MAGIC_BYTES]; // fl_magic_table
    uint32_t version;
    uint32_t companions; // at most FL_COMPANIONS_MAX
    uint64_t id;
    uint64_t pages;
    uint64_t list_checksum; // XXH3-64 of the list of companions
    uint64_t checksum;      // XXH3-64 of the bytes before
};
static_assert(sizeof(struct fl_disk_offer_table) == 48, "layout");

// All zero until the image is published.
struct fl_disk_offer_state {
    struct fl_identity content_id;
    uint64_t published; // 1
    uint64_t checksum;  // XXH3-64 of the bytes before
};
static_assert(sizeof(struct fl_disk_offer_state) == 48, "layout");

// All zero until the chunk is packed.
struct fl_disk_offer_chunk {
    uint64_t packed;   // 1
    uint64_t checksum; // XXH3-64 of its entries
};
static_assert(sizeof(struct fl_disk_offer_chunk) == 16, "layout");

// A frame of the pack that is being written.
struct fl_disk_offer_frame {
    struct fl_disk_frame frame;
    uint64_t checksum; // XXH3-64 of it
};
static_assert(sizeof(struct fl_disk_offer_frame) == 32, "layout");

struct fl_disk_offer_companion {
    uint64_t offset; // of its bytes in the table's file
    uint64_t bytes;
    uint64_t checksum; // XXH3-64 of its bytes
    char name[FL_NAME_MAX + 8];
};
static_assert(sizeof(struct fl_disk_offer_companion) == 160, "layout");

// A value of the index, whose key is the page's identity: where that page is stored.
struct fl_disk_place {
    uint64_t pack_id;
    uint32_t frame;
    uint16_t slot;
    uint16_t zero;
};
static_assert(sizeof(struct fl_disk_place) == 16, "layout");

#endif
