// SPDX-License-Identifier: Apache-2.0
//
// The reading side of the snapshot store: the only header of snapshot/ that engine/ includes.
//
// An image is one snapshot's memory: page number -> zero, or a slot in a compressed frame of a
// pack. Looking a page up never blocks; reading a frame does. An image that was opened lazily has
// pieces of its map on disk until they are needed: a page whose piece was not read yet looks up to
// that piece, which is read as a frame is.
//
// Errors are negative errno. -EBADMSG means that bytes on disk do not match their checksum.
#ifndef FAULTLINE_SNAPSHOT_READ_H
#define FAULTLINE_SNAPSHOT_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FL_PAGE_SHIFT 12
#define FL_PAGE_SIZE 4096u
// A frame holds 1 to FL_FRAME_PAGES_MAX pages; the packer makes frames of FL_FRAME_PAGES.
#define FL_FRAME_PAGES 16u
#define FL_FRAME_PAGES_MAX 512u
// Image names: 1 to FL_NAME_MAX of [A-Za-z0-9._-], not starting with '.' or '-'.
#define FL_NAME_MAX 128u

struct fl_reader; // a store opened for reading
struct fl_image;  // an open image; immutable, reference-counted

// A frame's identity. Pack ids are unique in a store; those of raw files have the top bit set and
// are unique in the process. So the pair can be the key of a cache that is shared by all images.
struct fl_frame_id {
    uint64_t pack;
    uint32_t frame;
};

// Consecutive pages of an image that come from one place: all zero (`zero`), or consecutive slots
// of one frame, the first of them `slot`. Or `unread`: the piece of the map that has this page
// (pages is 1) was not read yet. It is the "frame" `id`: once that has been read, look again; what
// is read is no page's bytes. If it cannot be read, neither can the pages that it has.
struct fl_run {
    uint32_t pages;
    bool zero;
    bool unread;
    uint32_t slot;
    struct fl_frame_id id;
};

// True if the name may name an image.
bool fl_name_valid(const char *name);

// What error of fl_frame_read() says of the frame, and one of the functions that open images of
// their image. Constant or strerror()'s.
const char *fl_frame_strerror(int error);
const char *fl_image_strerror(int error);

// What to say of a directory, its one %s, for which fl_reader_open() returns -ENOENT.
#define FL_NO_STORE                                                                                \
    "there is no store at %s: 'faultline pack' makes one; --store or $FAULTLINE_STORE says where"

// Any thread. -ENOENT if there is no store, -EPROTONOSUPPORT if its version is not ours.
int fl_reader_open(const char *store_dir, struct fl_reader **ret_reader);
// Gives a reference back; the last one closes it. Images hold their own of what they need: they may
// outlive the reader.
void fl_reader_close(struct fl_reader *reader);
// Another reference.
struct fl_reader *fl_reader_ref(struct fl_reader *reader);
// Any thread; blocks on storage. False if the path of the store, or of a part of it, leads to
// another directory now, or to none: it was moved, unmounted, replaced.
bool fl_reader_still_there(const struct fl_reader *reader);
// The directory in which image files appear by rename, as "NAME.img": watch it for new images.
const char *fl_reader_images_dir(const struct fl_reader *reader);
// Calls fn once for each published image, in no order; stops at its first non-zero result and
// returns it.
int fl_reader_list(struct fl_reader *reader, int (*fn)(void *arg, const char *name), void *arg);

// Any thread; blocks on storage. Opens the image and every pack it refers to, so that a later
// removal from the store does not hurt those who hold it. -ENOENT, -EINVAL (bad name), -EBADMSG,
// -ENOMEM ...
int fl_image_open(struct fl_reader *reader, const char *name, struct fl_image **ret_image);
// The same without reading its map, at a cost that does not depend on its size (unless its file is
// of version 1: then it is fl_image_open). Damage to a piece of the map shows when that is read.
int fl_image_open_lazy(struct fl_reader *reader, const char *name, struct fl_image **ret_image);
// Any thread; blocks on storage. Reads what is unread of the map for `pages` pages from `page` on.
int fl_image_read_map(const struct fl_image *image, uint64_t page, uint64_t pages);
// The descriptors behind an open image of a store: its own file first, then every pack it refers
// to. They stay the image's own: do not close them. Returns how many there are; fills at most `max`
// of ret_fds (may be NULL if max is 0). 0 for a raw memory file's image: its pack id is the
// process's, so it cannot be had again in this way; open the file again by its path.
uint32_t fl_image_files(const struct fl_image *image, int *ret_fds, uint32_t max);
// Opens an image from such descriptors (duplicates that came to another process), in the same order
// and whatever has become of the store. It is verified as by fl_image_open_lazy, each pack against
// the id that the image gives it, and its frames have the same ids; it shares no open pack with
// other images. Takes all descriptors in every case, also on an error; never moves their file
// offset. Any thread; blocks on storage. -EINVAL: one is no regular file, or there are more or
// fewer packs than the image refers to; -EBADMSG: the first is no image or a damaged one, or
// another is not the pack at that place or is damaged; -EPROTONOSUPPORT, -ENOMEM, errors of
// reading.
int fl_image_open_files(const int *fds, uint32_t count, struct fl_image **ret_image);
// A raw memory file as an image without a store: frames are FL_FRAME_PAGES pages of the file, holes
// are zero (SEEK_HOLE at the time of opening), a partial last page is filled up with zeros.
// -EINVAL if it is no regular file, -ENODATA if it is empty.
int fl_image_open_raw(const char *path, struct fl_image **ret_image);
struct fl_image *fl_image_ref(struct fl_image *image);
// NULL is allowed. The last one closes files, which may block: not from a thread that serves
// faults.
void fl_image_unref(struct fl_image *image);

// The same for images of the same content, whenever and under whatever name they were opened;
// different for any two others (a raw file's image is like no other). 128 bits of the content's
// cryptographic hash.
struct fl_image_id {
    uint64_t word[2];
};
struct fl_image_id fl_image_id(const struct fl_image *image);
const char *fl_image_name(const struct fl_image *image);
uint64_t fl_image_bytes(const struct fl_image *image); // of the memory file, exact
uint64_t fl_image_pages(const struct fl_image *image); // bytes rounded up to pages
// 32 bytes that name its content, whatever its layout; the image's own. NULL: a raw memory file's.
const uint8_t *fl_image_content_id(const struct fl_image *image);

// The longest run that starts at `page`, at most max_pages (>= 1) and not beyond the image's end.
// page must be below fl_image_pages(). Never blocks. Any thread.
struct fl_run fl_image_run(const struct fl_image *image, uint64_t page, uint32_t max_pages);

// Pages of the frame (its decompressed size in pages); 0 if the image refers to no such frame.
// Never blocks for the frame of a run; for one that is known otherwise, fl_frame_know() sees to
// that: it blocks on storage, and returns 0, -EINVAL, -EBADMSG, -ENOMEM, errors of reading. Any
// thread.
int fl_frame_know(const struct fl_image *image, struct fl_frame_id id);
uint32_t fl_frame_pages(const struct fl_image *image, struct fl_frame_id id);
// Reads, verifies and decompresses one frame into buf, of fl_frame_pages() pages. Blocks on
// storage: never call it from a thread that serves faults. Any thread. On an error buf's content is
// undefined.
int fl_frame_read(const struct fl_image *image, struct fl_frame_id id, void *buf);

// The same in two steps, for who reads many frames at once: the bytes are read by the caller.
// Where a frame's stored bytes are. The descriptor is the image's own, for pread() and the like.
struct fl_frame_place {
    int fd;
    uint32_t stored; // bytes, at least 1
    uint64_t offset;
};
// Any thread; blocks as little as fl_frame_pages(). -EINVAL if the image refers to no such frame,
// or it is a piece of the map.
int fl_frame_place(const struct fl_image *image, struct fl_frame_id id,
                   struct fl_frame_place *ret_place);
// Verifies and decompresses a frame's stored bytes, all of them, into buf, as fl_frame_read() does.
// Any thread, never blocks. stored and buf do not overlap.
int fl_frame_unpack(const struct fl_image *image, struct fl_frame_id id, const void *stored,
                    void *buf);

// The recorded order of first touches of an image, its working set. Immutable, reference-counted.
struct fl_trace;
struct fl_trace_entry {
    uint64_t page; // of the image
    uint32_t ms;   // after attach, the mean of the recordings that have it
    uint32_t seen; // recordings that have it
};

// Any thread; blocks on storage. The trace that the store keeps for the image. -ENOENT: none, or
// the image is a raw memory file's; -ESTALE: it was recorded of other content (the image was
// replaced); -EBADMSG, -EPROTONOSUPPORT, -ENOMEM, errors of reading. A trace is a hint: without one
// all pages are served, later.
int fl_trace_open(struct fl_reader *reader, const struct fl_image *image,
                  struct fl_trace **ret_trace);
struct fl_trace *fl_trace_ref(struct fl_trace *trace);
void fl_trace_unref(struct fl_trace *trace); // NULL is allowed; never blocks

uint32_t fl_trace_runs(const struct fl_trace *trace);  // recordings it was merged from
uint64_t fl_trace_count(const struct fl_trace *trace); // entries, at least 1
// In the order of replay: what most recordings have first, then by the mean place in them; and then
// each FL_TRACE_WINDOW of these by page, so that neighbours in memory come together and can be read
// and installed together. Each page at most once and below the image's pages. The trace's own.
#define FL_TRACE_WINDOW 1024u
const struct fl_trace_entry *fl_trace_entries(const struct fl_trace *trace);

#endif
