// SPDX-License-Identifier: Apache-2.0
//
// The reading side of the snapshot store. This is the only header of snapshot/ that engine/
// includes.
//
// An image is the memory of one snapshot. Its map says of each page that it is zero, or in which
// slot of which compressed frame of a pack it is. Looking a page up never blocks; reading a frame
// does. An image that is opened lazily leaves pieces of its map on disk until they are needed: a
// look-up in a piece that was not read yet answers with that piece, and the caller reads it as if
// it were a frame.
//
// All functions may be called from any thread. They return 0 or negative errno unless their
// comment says otherwise. -EBADMSG means that bytes on disk do not match their checksum.
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
// An image's name has 1 to FL_NAME_MAX characters of [A-Za-z0-9._-] and does not start with '.' or
// '-'.
#define FL_NAME_MAX 128u

struct fl_reader; // a store opened for reading
struct fl_image;  // an open image; immutable, reference-counted

// Identifies a frame. Pack ids are unique in a store. The pack ids of raw files have the top bit
// set and are unique in the process. So the pair can be the key of a cache that all images share.
struct fl_frame_id {
    uint64_t pack;
    uint32_t frame;
};

// `pages` consecutive pages of an image that come from one place. One of three holds:
// - zero: all pages are zero.
// - unread: the piece of the map that has this page was not read yet (pages is 1). Read the "frame"
//   `id` (its bytes are no page's) and look up again. If it cannot be read, the pages that the
//   piece maps cannot be read either.
// - neither: they are consecutive slots of the frame `id`, from `slot` on.
struct fl_run {
    uint32_t pages;
    bool zero;
    bool unread;
    uint32_t slot;
    struct fl_frame_id id;
};

// Returns true if an image may have this name.
bool fl_name_valid(const char *name);

// Return what to say of an error: of fl_frame_read(), the rest of a sentence that begins with "the
// frame"; of a function that opens images, a sentence. The text is constant or strerror()'s.
const char *fl_frame_strerror(int error);
const char *fl_image_strerror(int error);

// The format of the message for a directory (its one %s) for which fl_reader_open() returns
// -ENOENT.
#define FL_NO_STORE                                                                                \
    "there is no store at %s: 'faultline pack' makes one; --store or $FAULTLINE_STORE says where"

// Opens a store and returns a reference to it. -ENOENT: there is no store; -EPROTONOSUPPORT: this
// program does not know its version.
int fl_reader_open(const char *store_dir, struct fl_reader **ret_reader);
// Drops a reference; the last one closes the store. An image holds references to what it needs of
// the store, so it may outlive the reader.
void fl_reader_close(struct fl_reader *reader);
// Takes and returns another reference.
struct fl_reader *fl_reader_ref(struct fl_reader *reader);
// Blocks on storage. Returns false if the path of the store, or of a part of it, no longer leads to
// the directory that was opened: it was moved, unmounted or replaced.
bool fl_reader_still_there(const struct fl_reader *reader);
// Returns the path of the directory in which image files appear by rename, as "NAME.img". To learn
// of new images, watch it. The reader owns the string.
const char *fl_reader_images_dir(const struct fl_reader *reader);
// Calls fn once for each published image, in no order; stops at its first non-zero result and
// returns it.
int fl_reader_list(struct fl_reader *reader, int (*fn)(void *arg, const char *name), void *arg);

// Returns 0 if the image's header can be read and every pack that it refers to is there: a cheap
// look, which opens no pack. Blocks on storage. -ESTALE: a pack is not there; -ENOENT, -EBADMSG and
// the like as of opening it.
int fl_image_look(struct fl_reader *reader, const char *name);

// Opens an image and every pack that it refers to, so that an open image stays readable after its
// removal from the store. Blocks on storage. -ENOENT, -EINVAL (bad name), -EBADMSG, -ENOMEM ...
// Not one on offer.
int fl_image_open(struct fl_reader *reader, const char *name, struct fl_image **ret_image);
// Opens an image without reading its map, at a cost that does not depend on the image's size (a
// file of version 1 is opened as by fl_image_open). Damage to a piece of the map shows when the
// piece is read. Blocks on storage. -EOWNERDEAD: there is an image on offer, which will never be
// finished.
int fl_image_open_lazy(struct fl_reader *reader, const char *name, struct fl_image **ret_image);
// Reads the unread pieces of the map that have the `pages` pages from `page` on. Blocks on storage.
int fl_image_read_map(const struct fl_image *image, uint64_t page, uint64_t pages);
// Returns how many descriptors stand behind an open image: that of its own file, of one on offer
// also that of its table, then one for each pack that it refers to. Writes at most `max` of them to
// ret_fds (may be NULL if max is 0). The image owns them: do not close them. Returns 0 for the
// image of a raw memory file, whose pack id is valid in this process only; open such a file again
// by its path.
uint32_t fl_image_files(const struct fl_image *image, int *ret_fds, uint32_t max);
// Opens an image from such descriptors (duplicates that came to another process), in the same
// order. The store is not needed for this. The image is verified as by fl_image_open_lazy, and each
// pack against the id that the image gives it. Its frames have the same ids as before. It shares no
// open pack with other images. Takes all descriptors over, also on an error, and never moves their
// file offset. Blocks on storage. -EINVAL: a descriptor is not a regular file's, or there are more
// or fewer packs than the image refers to; -EBADMSG: the first file is not an image, another one is
// not the pack at that place, or one is damaged; -EPROTONOSUPPORT, -ENOMEM, errors of reading.
int fl_image_open_files(const int *fds, uint32_t count, struct fl_image **ret_image);
// Opens a raw memory file as an image without a store. A frame is FL_FRAME_PAGES pages of the file.
// Holes (SEEK_HOLE at the time of opening) are zero, and a partial last page is filled up with
// zeros. Blocks on storage. -EINVAL: it is not a regular file; -ENODATA: it is empty.
int fl_image_open_raw(const char *path, struct fl_image **ret_image);
// True for the image of a raw memory file.
bool fl_image_is_raw(const struct fl_image *image);
// Reads whole pages of a raw memory file that are in the page cache, at most `pages` of them from
// `page` on, and never waits for storage. Returns how many; 0 also for any other image, and where
// the file system cannot say what is there.
uint32_t fl_image_read_now(const struct fl_image *image, uint64_t page, uint32_t pages, void *buf);
// True if all FL_PAGE_SIZE bytes are zero.
bool fl_page_is_zero(const void *page);
// Takes and returns another reference.
struct fl_image *fl_image_ref(struct fl_image *image);
// Drops a reference; NULL is a no-op. The last one closes files, which may block, so a thread that
// serves faults does not call this.
void fl_image_unref(struct fl_image *image);

// Identifies the content of an image: equal for two images of the same content, under whatever
// names they were opened, and different for any other two. A raw file's image equals no other. The
// id is 128 bits of the content's cryptographic hash.
struct fl_image_id {
    uint64_t word[2];
};
struct fl_image_id fl_image_id(const struct fl_image *image);
const char *fl_image_name(const struct fl_image *image);
uint64_t fl_image_bytes(const struct fl_image *image); // of the memory file, exact
uint64_t fl_image_pages(const struct fl_image *image); // bytes rounded up to pages
// Returns the 32 bytes of the content id, which does not depend on the layout; the image owns them.
// NULL for the image of a raw memory file, and for one on offer until it was seen to be published.
const uint8_t *fl_image_content_id(const struct fl_image *image);

// Returns true if both have the same content, under whatever names.
bool fl_image_same(const struct fl_image *image, const struct fl_image *other);

// An image on offer can be restored while it is still packed ("NAME.live" in the directory of
// images). It is opened as any other, where there is no finished image of its name. A piece of its
// map that is not packed yet is unread; it is wanted by being read, which is -EINPROGRESS until it
// is there. -EOWNERDEAD: it never will be, as the process that packed has ended before. When the
// image is published, an open one goes on as it is, and needs nothing of the files that are removed
// then.
bool fl_image_is_offered(const struct fl_image *image);
// Blocks on storage, shortly. Looks whether an image on offer is published: then
// fl_image_content_id() knows it from now on. 0; -EINPROGRESS: not yet; errors of reading.
int fl_image_settle(struct fl_image *image);
// Calls fn once for each image on offer that is being packed now and that has no finished image,
// in no order, as fl_reader_list() does.
int fl_reader_list_offered(struct fl_reader *reader, int (*fn)(void *arg, const char *name),
                           void *arg);

// Returns the longest run that starts at `page`, of at most max_pages (>= 1) pages and not beyond
// the image's end. page must be below fl_image_pages(). Never blocks.
struct fl_run fl_image_run(const struct fl_image *image, uint64_t page, uint32_t max_pages);

// Reads the part of a pack's frame table that describes this frame. Needed only for a frame that no
// run has named. Blocks on storage. -EINVAL: the image refers to no such frame; -EBADMSG, -ENOMEM,
// errors of reading.
int fl_frame_know(const struct fl_image *image, struct fl_frame_id id);
// Returns the decompressed size of a frame in pages; 0 if the image refers to no such frame. Never
// blocks for a frame that a run or fl_frame_know() has named.
uint32_t fl_frame_pages(const struct fl_image *image, struct fl_frame_id id);
// Reads, verifies and decompresses one frame into buf, which has room for fl_frame_pages() pages.
// On an error the content of buf is undefined. Blocks on storage, so a thread that serves faults
// does not call this.
int fl_frame_read(const struct fl_image *image, struct fl_frame_id id, void *buf);

// The same in two steps, for a caller that reads many frames at once: it reads the bytes itself.
// This is where a frame's stored bytes are. The image owns the descriptor; use it for pread() and
// the like.
struct fl_frame_place {
    int fd;
    uint32_t stored; // bytes, at least 1
    uint64_t offset;
};
// Blocks only where fl_frame_pages() does. -EINVAL: the image refers to no such frame, or it is a
// piece of the map.
int fl_frame_place(const struct fl_image *image, struct fl_frame_id id,
                   struct fl_frame_place *ret_place);
// Verifies and decompresses all stored bytes of a frame into buf, as fl_frame_read() does. stored
// and buf must not overlap. Never blocks.
int fl_frame_unpack(const struct fl_image *image, struct fl_frame_id id, const void *stored,
                    void *buf);

// The path of the file that has the frame, or the piece of the map, as the kernel names it now; of
// the image's own file for an id of none of them; "-" where that cannot be seen. Never blocks on
// storage. Returns buf.
const char *fl_frame_path(const struct fl_image *image, struct fl_frame_id id, char *buf,
                          size_t size);

// A trace: the working set of an image, in the recorded order of first touches. Immutable,
// reference-counted.
struct fl_trace;
struct fl_trace_entry {
    uint64_t page; // page number in the image
    uint32_t ms;   // milliseconds after attach: the mean of the recordings that have the page
    uint32_t seen; // number of recordings that have the page
};

// Opens the trace that the store keeps for the image. A trace is a hint: without one all pages are
// served, only later. Blocks on storage. -ENOENT: there is none, or the image is a raw memory
// file's; -ESTALE: it was recorded from other content (the image was replaced); -EBADMSG,
// -EPROTONOSUPPORT, -ENOMEM, errors of reading.
int fl_trace_open(struct fl_reader *reader, const struct fl_image *image,
                  struct fl_trace **ret_trace);
struct fl_trace *fl_trace_ref(struct fl_trace *trace);
void fl_trace_unref(struct fl_trace *trace); // NULL is a no-op; never blocks

uint32_t fl_trace_runs(const struct fl_trace *trace);  // recordings it was merged from
uint64_t fl_trace_count(const struct fl_trace *trace); // entries, at least 1
// Returns the entries in the order of replay; the trace owns them. Pages that more recordings have
// come first, and among these the page with the lower mean place. Then each FL_TRACE_WINDOW of
// entries is sorted by page, so that neighbours in memory can be read and installed together. Each
// page comes at most once and is a page of the image.
#define FL_TRACE_WINDOW 1024u
const struct fl_trace_entry *fl_trace_entries(const struct fl_trace *trace);

#endif
