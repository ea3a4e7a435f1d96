// SPDX-License-Identifier: Apache-2.0
//
// The writing side of the snapshot store: the operations behind the verbs of the command. engine/
// never includes this header.
//
// Threads: one thread at a time uses a store handle, and a process uses one handle of a store at a
// time (LMDB's locks belong to the process). Several processes may work on one store: packing,
// verifying and removing take the store's lock shared; collecting takes it exclusively and waits
// for the others.
//
// Errors: every operation returns 0 or negative errno. With an error it writes one sentence that
// names the object to ret_error (may be NULL) and leaves its results untouched. After a failure
// nothing is half published and temporary files are gone; after a kill fl_store_gc removes what is
// left over.
#ifndef FAULTLINE_SNAPSHOT_STORE_H
#define FAULTLINE_SNAPSHOT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/about.h"
#include "snapshot/codec.h"
#include "snapshot/error.h"
#include "snapshot/live.h"
#include "snapshot/read.h"

struct fl_store;

// fn is called from the thread that called the operation, about ten times a second and once at the
// end. If it returns other than 0, the operation stops with -ECANCELED. done and total are in units
// of the operation: bytes or objects.
struct fl_progress {
    int (*fn)(void *arg, uint64_t done, uint64_t total); // NULL: none
    void *arg;
};

// Opens a store. With create it makes one where there is none, if the directory is missing or
// empty. -ENOENT: there is no store; -EPROTONOSUPPORT: this program does not know its version;
// -ENOTEMPTY: the directory has something else.
int fl_store_open(const char *dir, bool create, struct fl_store **ret_store,
                  struct fl_error *ret_error);
void fl_store_close(struct fl_store *store); // NULL is a no-op

// An image on offer (read.h) has one or more names, and can be restored by them while it is packed
// from a live source. What is packed of it is where the image will have it. Of an offer one image
// is packed; who made the offer publishes the others, as copies, and withdraws their names.
struct fl_offer;
// -ENOMEM. It has no file before fl_store_pack().
int fl_offer_new(const char *const *names, size_t count, struct fl_offer **ret_offer);
// The name leads to an image by now, or never will.
void fl_offer_withdraw(struct fl_offer *offer, const char *name);
// Removes what is left of its files. If the image was not published, VMs that were restored from it
// get no more pages. NULL is a no-op.
void fl_offer_end(struct fl_offer *offer);

struct fl_pack_options {
    const char *name;
    const char *path;                     // of the memory file: a regular file of at least 1 byte
    const struct fl_pack_live *live;      // NULL: the memory file
    const struct fl_companion_file *with; // companions: regular files
    size_t with_count;
    const char *const *labels; // KEY=VALUE, each key once
    size_t labels_count;
    struct fl_offer *offer;            // of a live source; NULL: it is not on offer
    bool replace;                      // replace an image of this name, atomically
    bool trust_store;                  // share frames without reading them, unless known to be bad
    struct fl_compression compression; // of the new pack; usually fast LZ4
    unsigned threads;                  // 0: one a core
    struct fl_progress progress;       // bytes of input
};

struct fl_pack_result {
    uint64_t input_bytes;
    uint64_t data_bytes; // of it not in holes
    uint64_t pages;      // = zero + duplicate + shared + stored
    uint64_t zero_pages;
    uint64_t duplicate_pages; // of pages stored for this image
    uint64_t shared_pages;    // with packs that were there before
    uint64_t inherited_pages; // of shared_pages: where the parent has them
    uint64_t stored_pages;
    uint64_t declined_pages; // of stored_pages: known, but stored again against fragmentation
    uint64_t stored_bytes;   // of the new pack, 0 if it needed none
    uint64_t image_bytes;    // of the image file
    uint64_t pack_id;        // 0 if it needed none
    uint8_t content_id[32];  // of the image
    double seconds;
    double hash_seconds;     // CPU, all threads
    double check_seconds;    // CPU, all threads: of reading what is shared
    double compress_seconds; // CPU, all threads
    double write_seconds;    // wall, with the flushes
    double index_seconds;    // wall, of the final transaction
    double settle_seconds;   // wall, from the last page of a live source to the published image
    unsigned threads;
    uint64_t bad_frames;     // of earlier images, with pages of this one: none of them was shared
    bool bad_not_noted;      // the list of bad frames could not be written
    uint64_t healed_images;  // earlier images that got pages of this one for damaged pages
    uint64_t damaged_images; // earlier images that have damaged pages still, or cannot be read
    uint64_t trace_pages;    // of a live source: of the parent's trace, which the image has now
    int trace_error;         // why it has none, although the parent has one: -errno or 0
    bool index_damaged;      // the index could not be used: not all known pages were shared
    bool index_not_updated;  // later images share no page of this one until the index is rebuilt
    bool index_rebuilt;      // the index was damaged and was built again from the packs
    int index_error;         // why the index could not be used, updated or built: -errno or 0
};

// Returns 0 if the file can be packed. A caller that creates a store for it asks this first.
int fl_pack_check_input(const char *path, struct fl_error *ret_error);
// Adds a memory file to the store as an image. -EEXIST: there is an image of this name (without
// replace). Of a live source also: -ENOENT: there is no parent image; -ESTALE: it has other content
// now; -EBADMSG: it is damaged; errors of `await`.
int fl_store_pack(struct fl_store *store, const struct fl_pack_options *options,
                  struct fl_pack_result *ret_result, struct fl_error *ret_error);

struct fl_unpack_options {
    const char *name;
    const char *path;                     // of the memory file; NULL: only companions
    const struct fl_companion_file *with; // companions that are written back
    size_t with_count;
    bool force; // replace existing files, atomically
    unsigned threads;
    struct fl_progress progress; // bytes of output
};

struct fl_unpack_result {
    uint64_t bytes;
    uint64_t data_bytes; // of it not in holes
    double seconds;
};

// Writes an image back as a memory file.
int fl_store_unpack(struct fl_store *store, const struct fl_unpack_options *options,
                    struct fl_unpack_result *ret_result, struct fl_error *ret_error);

struct fl_verify_options {
    const char *const *names; // NULL: every image and every pack
    size_t names_count;
    unsigned threads;
    // May be NULL. Called once for each object that is wrong ("image NAME", "trace NAME" or "pack
    // ID"), with a sentence about it; from any thread of the operation, but by one at a time. A bad
    // pack comes before the images that need it.
    void (*bad)(void *arg, const char *object, const char *problem);
    void *bad_arg;
    struct fl_progress progress; // stored bytes
};

struct fl_verify_result {
    uint64_t images, packs, frames, pages, traces, companions;
    uint64_t bad;             // objects that were reported
    uint64_t unneeded_frames; // bad frames that no image needs any more: not reported
    bool list_not_written;    // the list of bad frames could not be written
    double seconds;
};

// Checks every byte of the named images, or of all images and packs. Returns 0 also if something is
// bad: the result counts it. An error means that the store could not be checked.
int fl_store_verify(struct fl_store *store, const struct fl_verify_options *options,
                    struct fl_verify_result *ret_result, struct fl_error *ret_error);

struct fl_image_info {
    char name[FL_NAME_MAX + 1];
    uint64_t bytes, pages;
    uint64_t zero_pages, duplicate_pages, shared_pages, stored_pages, declined_pages;
    uint64_t created; // seconds since the epoch
    uint64_t packs;
    uint64_t packs_missing; // of these; if it is not 0 the image cannot be opened
    uint8_t content_id[32];
    uint32_t companions;
    uint64_t companion_pages;
    char parent[FL_NAME_MAX + 1]; // "": none
    uint8_t parent_content_id[32];
};

// Reads the image's header and pack table only. -ENOENT, -EINVAL (bad name), -EBADMSG.
int fl_store_image_info(struct fl_store *store, const char *name, struct fl_image_info *ret_info,
                        struct fl_error *ret_error);
// Tells what the image has besides memory. Errors likewise. Release it with fl_image_about_free.
int fl_store_image_about(struct fl_store *store, const char *name, struct fl_image_about *ret_about,
                         struct fl_error *ret_error);
// Returns the names of all images, sorted. Release them with fl_store_free_names. count may be 0.
int fl_store_image_names(struct fl_store *store, char ***ret_names, size_t *ret_count,
                         struct fl_error *ret_error);
void fl_store_free_names(char **names, size_t count);

// An image on offer that is not published, or what is left of one.
struct fl_offer_info {
    char name[FL_NAME_MAX + 1];
    bool left;             // the process that packed it has ended: it never will be published
    uint64_t bytes;        // of its memory; 0: not known, as it is damaged, or of another version
    uint64_t pages;        // bytes rounded up
    uint64_t packed_pages; // so far
};

// Looks for all images on offer; sorted by name. *ret_offers is to be freed. count may be 0.
int fl_store_offers(struct fl_store *store, struct fl_offer_info **ret_offers, size_t *ret_count,
                    struct fl_error *ret_error);

struct fl_image_space {
    uint64_t own_bytes;    // of the image's file, and of packs that no other image needs
    uint64_t shared_bytes; // of packs that others need, too
};

// Tells of all images of the store (fl_store_image_names) what they have on disk. Reads their
// headers and pack tables only. An image that cannot be read counts for nothing.
int fl_store_space(struct fl_store *store, char *const *names, size_t count,
                   struct fl_image_space *ret_space, struct fl_error *ret_error);

enum fl_trace_state {
    FL_TRACE_NONE,
    FL_TRACE_GOOD,
    FL_TRACE_STALE, // recorded from other content: the image was replaced
    FL_TRACE_BAD,   // damaged, or of a version that is not known
};

struct fl_trace_info {
    enum fl_trace_state state;
    uint64_t pages; // in the trace; this and `runs` are 0 unless the state is FL_TRACE_GOOD
    uint32_t runs;  // recordings it was merged from
};

struct fl_image_detail {
    struct fl_image_info info;
    struct fl_trace_info trace;
    uint64_t frames;       // that the image refers to
    uint64_t frame_pages;  // in these frames: more than the image has where it uses a frame in part
    uint64_t stored_bytes; // of these frames
    uint64_t ranges;       // of 2 MiB of memory that have a page which is not zero
    uint64_t range_frames; // the sum over these ranges of the frames that each refers to
    uint64_t range_frames_max;
};

// Reads the image's map as well. Errors as those of opening an image.
int fl_store_inspect(struct fl_store *store, const char *name, struct fl_image_detail *ret_detail,
                     struct fl_error *ret_error);

// The touches of one VM. A page that comes more than once counts at its first place.
struct fl_recording {
    const struct fl_trace_entry *entries; // in the order of touch; `seen` is ignored
    uint64_t count;
    const uint8_t *content_id; // 32 bytes, of the VM's image; NULL: that of the image in the store
};

// Merges recordings into the trace of the image, or replaces the trace by them (with replace, or if
// the trace is stale). Pages that more recordings have come first; among these, the page with the
// lower mean place, where a place is a share of its recording. Recordings without pages do not
// count. Several processes may merge at the same time without losing a recording. -ENOENT: there is
// no such image; -ENODATA: there is nothing to merge; -EINVAL: a page is beyond the image; -ESTALE:
// the content was another one, or the image was replaced or removed meanwhile; -EBADMSG,
// -EPROTONOSUPPORT: the present trace cannot be read (replace does not read it); -EOVERFLOW: the
// trace is merged from too many recordings.
int fl_store_trace_merge(struct fl_store *store, const char *name,
                         const struct fl_recording *recordings, unsigned count, bool replace,
                         struct fl_error *ret_error);
// Returns the trace of an image as one recording, in the order of touch, for example to merge it
// into the trace of another image. The content that it was recorded from does not matter. Release
// it with fl_recording_free. -ENOENT, -EBADMSG, -EPROTONOSUPPORT.
int fl_store_trace_read(struct fl_store *store, const char *name,
                        struct fl_recording *ret_recording, struct fl_error *ret_error);
void fl_recording_free(struct fl_recording *recording);
// Removes the trace of an image. -ENOENT: there is no trace of this name.
int fl_store_trace_rm(struct fl_store *store, const char *name, struct fl_error *ret_error);

// What it costs to replay a trace, with the image in its present layout.
struct fl_replay_cost {
    uint64_t pages;  // pages of the trace that are not zero
    uint64_t frames; // frames to be read and decompressed for them
    uint64_t pieces; // contiguous pieces of files that have these frames: 1 is a sequential read
    uint64_t bytes;  // stored bytes of these frames
    uint64_t frame_pages; // pages in these frames, also of no interest
    uint64_t runs;        // ranges of pages that can be installed at once, in the order of replay
};

struct fl_optimize_options {
    const char *name;
    bool dry_run;                      // estimate what it would cost and gain, and write nothing
    struct fl_compression compression; // of the new pack; usually LZ4HC
    struct fl_progress progress;       // bytes of the working set, read and written
};

// What only a dry run says. The bounds are never passed.
struct fl_optimize_estimate {
    uint64_t read_bytes;       // of packs: the frames and what identifies their pages
    uint64_t stored_bytes_max; // of the new pack, if no page of it can be compressed
    uint64_t write_bytes_max;  // of all files, also those that are gone at the end
    uint64_t space_bytes_max;  // on disk at any one time, while it is done
    uint64_t free_bytes;       // of the store's file system now
};

struct fl_optimize_result {
    uint64_t trace_pages;
    uint64_t zero_pages; // of trace_pages: they stay zero
    struct fl_replay_cost before, after;
    bool already;          // the image had this layout before: nothing was written
    uint64_t stored_bytes; // of the new pack: the cost, as the old copies of the pages stay; of a
                           // dry run it is an estimate, and so is after.bytes: that pages compress
                           // as the frames do where they are now
    uint64_t image_bytes;  // of the new image file
    uint64_t pack_id;
    double seconds;
    bool index_not_updated, index_rebuilt;
    int index_error; // -errno or 0
    bool dry_run;
    struct fl_optimize_estimate estimate; // of a dry run
};

// Stores the pages of the image's trace again, in the order of replay, in a pack of their own, and
// replaces the image by one with a new map, atomically. Content, content id and trace stay the
// same. VMs that have the old image open keep it. -ENOENT: there is no image or no trace; -ESTALE:
// the trace is of other content, or the image was replaced or removed meanwhile.
int fl_store_optimize(struct fl_store *store, const struct fl_optimize_options *options,
                      struct fl_optimize_result *ret_result, struct fl_error *ret_error);

// What rewriting packs has done. The old packs are still there: fl_store_gc removes them.
struct fl_rewrite_result {
    uint64_t packs_rewritten;
    uint64_t packs_left;                // of those that were looked at
    uint64_t images;                    // new maps of images, which each refer to some new packs
    uint64_t images_left;               // that could not be read or written: they are as they were
    uint64_t bytes_before, bytes_after; // of the files of these packs
    uint64_t pages;                     // in the new packs
    uint64_t pages_left_out;            // as no image needs them, or they are in bad frames
    uint64_t bad_frames;                // that are damaged, and stay where they are
    bool index_not_updated, index_rebuilt;
    int index_error; // -errno or 0
    double seconds;
};

struct fl_recompress_options {
    const char *const *names; // NULL: all images
    size_t names_count;
    struct fl_compression compression; // with a codec
    unsigned threads;                  // 0: one
    uint64_t rate;                     // bytes read and written a second, at most; 0: no limit
    struct fl_progress progress;       // bytes of packs
};

// Compresses the packs of these images in another way, once, also for the other images that need
// them. Content, content ids and traces stay the same, and so does what is shared; pages that no
// image needs are left out. A pack that has this codec is left alone if, by a sample of its frames,
// little would be saved. VMs that have an image open keep it. -ENOENT: there is no such image.
int fl_store_recompress(struct fl_store *store, const struct fl_recompress_options *options,
                        struct fl_rewrite_result *ret_result, struct fl_error *ret_error);

struct fl_compact_options {
    unsigned percent;            // of a pack's pages: if no image needs so many, it is rewritten
    bool dry_run;                // estimate what would be done, and write nothing
    unsigned threads;            // 0: one
    uint64_t rate;               // bytes read and written a second, at most; 0: no limit
    struct fl_progress progress; // bytes of packs
};

// Rewrites packs in which many pages are not needed any more, without these; each keeps its codec.
// The space comes back with fl_store_gc. An image cannot be read: nothing is done, with its error.
int fl_store_compact(struct fl_store *store, const struct fl_compact_options *options,
                     struct fl_rewrite_result *ret_result, struct fl_error *ret_error);

struct fl_codec_estimate {
    struct fl_compression compression;
    uint64_t stored_bytes; // of the frames that the image refers to, by estimate
};

// Compresses frames of the image in several ways, evenly spread and at most 32, and estimates from
// them what all of its frames would take. *ret_frames is how many frames that rests on: 0 if the
// image has none. Errors as of opening the image.
#define FL_ESTIMATES 5u
int fl_store_inspect_codecs(struct fl_store *store, const char *name,
                            struct fl_codec_estimate ret_estimates[FL_ESTIMATES],
                            uint64_t *ret_frames, struct fl_error *ret_error);

struct fl_repair_image {
    const char *name;
    uint64_t bad_pages;  // pages that were damaged
    uint64_t left;       // of bad_pages: not healed
    const char *problem; // why the image cannot be opened or written; NULL: it can
};

struct fl_repair_options {
    const char *memory_path; // pages may come from this memory file; NULL: none
    const char *store_dir;   // pages may come from all packs of this other store; NULL: none
    bool dry_run;            // report what would be done, and write nothing
    // Called for each image that had damaged pages or cannot be opened.
    void (*image)(void *arg, const struct fl_repair_image *image);
    void *image_arg;
    struct fl_progress progress; // units of one source at a time
};

struct fl_repair_result {
    uint64_t bad_frames;   // frames on the list of bad frames that are bad still
    uint64_t wanted_pages; // pages of these frames that images need
    uint64_t found_pages;  // of wanted_pages
    uint64_t images;       // images that had damaged pages or cannot be opened
    uint64_t images_left;  // of images: they are not all right
    uint64_t stored_bytes; // of the new pack, 0 if none was needed
    uint64_t pack_id;      // 0 if none was needed
    bool list_not_written; // the list of bad frames could not be written
    bool index_not_updated, index_rebuilt;
    int index_error; // -errno or 0
    double seconds;
};

// Heals images that need pages of bad frames, which fl_store_verify and fl_store_pack have listed.
// Looks for the pages in the store's other packs, in what is left of the frames, in the memory file
// and in the other store. Stores them in a new pack, and replaces each image that needs them by one
// with a new map, atomically: content, content id, trace and name stay the same. VMs that have an
// image open keep what they have. Returns 0 also if some pages were not found: the result says so.
int fl_store_repair(struct fl_store *store, const struct fl_repair_options *options,
                    struct fl_repair_result *ret_result, struct fl_error *ret_error);

// Removes an image's name and its trace. The space comes back with fl_store_gc. A process that has
// the image open keeps it. -ENOENT, -EINVAL (bad name).
int fl_store_rm(struct fl_store *store, const char *name, struct fl_error *ret_error);

struct fl_gc_options {
    bool dry_run;                // report what would be done, and remove nothing
    bool rebuild_index;          // build the index again even if it seems to be all right
    struct fl_progress progress; // objects
};

struct fl_gc_result {
    uint64_t packs_removed, packs_kept;
    uint64_t temporaries_removed;
    uint64_t traces_removed; // of images that are gone or have other content now
    uint64_t bytes_freed;    // of packs, temporaries and traces
    uint64_t dead_bytes;     // of frames in the kept packs that no image refers to
    uint64_t packs_indexed;  // packs that the index did not know
    bool index_rebuilt;
    bool index_not_updated; // later images may share fewer pages; there is no other harm
    int index_error;        // why: -errno or 0
};

// Removes packs that no image refers to, and what interrupted runs left behind. Removes no pack
// (-EBADMSG) while an image cannot be read, because its packs are not known.
int fl_store_gc(struct fl_store *store, const struct fl_gc_options *options,
                struct fl_gc_result *ret_result, struct fl_error *ret_error);

#endif
