// SPDX-License-Identifier: Apache-2.0
//
// The writing side of the snapshot store: what the verbs of the command do. engine/ never includes
// it.
//
// A store handle belongs to one thread at a time, and a process works on a store through one handle
// at a time (LMDB's locks are the process's). Several processes may work on one store: packing,
// verifying and removing take the store's lock shared, collecting takes it exclusively and waits
// for the others.
//
// Every operation returns 0 or negative errno; with an error it fills ret_error (NULL is allowed)
// with one sentence that names the object. Results are untouched on failure. After a failure
// nothing is half published and temporary files are gone; after a kill fl_store_gc finds what is
// left over.
#ifndef FAULTLINE_SNAPSHOT_STORE_H
#define FAULTLINE_SNAPSHOT_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/error.h"
#include "snapshot/read.h"

struct fl_store;

// Called from the operation's own thread about ten times a second and once at the end. A result
// other than 0 stops the operation with -ECANCELED. Units are the operation's: bytes or objects.
struct fl_progress {
    int (*fn)(void *arg, uint64_t done, uint64_t total); // NULL: none
    void *arg;
};

// With create a store is made where there is none: in a directory that is missing or empty.
// -ENOENT: no store; -EPROTONOSUPPORT: of another version; -ENOTEMPTY: something else is there.
int fl_store_open(const char *dir, bool create, struct fl_store **ret_store,
                  struct fl_error *ret_error);
void fl_store_close(struct fl_store *store); // NULL is allowed

struct fl_pack_options {
    const char *name;
    const char *path;            // of the memory file: a regular file of at least 1 byte
    bool replace;                // an image of this name gives way, atomically
    bool trust_store;            // share frames without reading them, unless known to be bad
    unsigned threads;            // 0: one a core
    struct fl_progress progress; // bytes of input
};

struct fl_pack_result {
    uint64_t input_bytes;
    uint64_t data_bytes; // of it not in holes
    uint64_t pages;      // = zero + duplicate + shared + stored
    uint64_t zero_pages;
    uint64_t duplicate_pages; // of pages stored for this image
    uint64_t shared_pages;    // with packs that were there before
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
    unsigned threads;
    uint64_t bad_frames; // of earlier images, that have pages of this one: none of them is shared
    bool bad_not_noted;  // the store could not remember them
    uint64_t healed_images;  // earlier ones, that got pages of this one for damaged pages of theirs
    uint64_t damaged_images; // earlier ones that have damaged pages still, or cannot be read
    bool index_damaged;      // could not be used: not all that is known was shared
    bool index_not_updated;  // later images will not share this one's pages until it is rebuilt
    bool index_rebuilt;      // it was damaged, and was made anew from the packs
    int index_error;         // why it could not be used, updated or made anew: -errno or 0
};

// 0 if the file can be packed. For who would not make a store for nothing.
int fl_pack_check_input(const char *path, struct fl_error *ret_error);
// -EEXIST without replace.
int fl_store_pack(struct fl_store *store, const struct fl_pack_options *options,
                  struct fl_pack_result *ret_result, struct fl_error *ret_error);

struct fl_unpack_options {
    const char *name;
    const char *path;
    bool force; // an existing file gives way, atomically
    unsigned threads;
    struct fl_progress progress; // bytes of output
};

struct fl_unpack_result {
    uint64_t bytes;
    uint64_t data_bytes; // of it not in holes
    double seconds;
};

int fl_store_unpack(struct fl_store *store, const struct fl_unpack_options *options,
                    struct fl_unpack_result *ret_result, struct fl_error *ret_error);

struct fl_verify_options {
    const char *const *names; // NULL: every image and every pack
    size_t names_count;
    unsigned threads;
    // Called once for each thing that is wrong: "image NAME", "trace NAME" or "pack ID", and a
    // sentence about it. Images that need what is bad come after it.
    void (*bad)(void *arg, const char *object, const char *problem);
    void *bad_arg;
    struct fl_progress progress; // stored bytes
};

struct fl_verify_result {
    uint64_t images, packs, frames, pages, traces;
    uint64_t bad;             // things reported
    uint64_t unneeded_frames; // bad ones that no image needs any more: not reported
    bool list_not_written;    // the store could not remember the bad frames
    double seconds;
};

// 0 also if bad things were found: they are in the result. An error means that it could not be
// checked.
int fl_store_verify(struct fl_store *store, const struct fl_verify_options *options,
                    struct fl_verify_result *ret_result, struct fl_error *ret_error);

struct fl_image_info {
    char name[FL_NAME_MAX + 1];
    uint64_t bytes, pages;
    uint64_t zero_pages, duplicate_pages, shared_pages, stored_pages, declined_pages;
    uint64_t created; // seconds since the epoch
    uint64_t packs;
    uint64_t packs_missing; // of them: then the image cannot be opened
    uint8_t content_id[32];
};

// From the image's header and pack table alone. -ENOENT, -EINVAL, -EBADMSG.
int fl_store_image_info(struct fl_store *store, const char *name, struct fl_image_info *ret_info,
                        struct fl_error *ret_error);
// The names of all images, sorted; free each and the array. count may be 0.
int fl_store_image_names(struct fl_store *store, char ***ret_names, size_t *ret_count,
                         struct fl_error *ret_error);
void fl_store_free_names(char **names, size_t count);

enum fl_trace_state {
    FL_TRACE_NONE,
    FL_TRACE_GOOD,
    FL_TRACE_STALE, // recorded of other content: the image was replaced
    FL_TRACE_BAD,   // damaged, or of a version that is not known
};

struct fl_trace_info {
    enum fl_trace_state state;
    uint64_t pages; // in it; this and the next are 0 unless it is good
    uint32_t runs;  // recordings it was merged from
};

struct fl_image_detail {
    struct fl_image_info info;
    struct fl_trace_info trace;
    uint64_t frames;       // that the image refers to
    uint64_t frame_pages;  // in them; more than the image uses where it uses frames in part
    uint64_t stored_bytes; // of these frames
    uint64_t ranges;       // of 2 MiB that have a page which is not zero
    uint64_t range_frames; // the sum over these ranges of the frames they refer to
    uint64_t range_frames_max;
};

int fl_store_inspect(struct fl_store *store, const char *name, struct fl_image_detail *ret_detail,
                     struct fl_error *ret_error);

// One VM's touches, each page where it was touched first; what comes again is ignored.
struct fl_recording {
    const struct fl_trace_entry *entries; // in the order of touch; `seen` is ignored
    uint64_t count;
    const uint8_t *content_id; // of the image that the VM has: 32 bytes; NULL: whatever is there
};

// Merges recordings into the trace of the image, or with replace puts them in its place. A stale
// trace gives way as well. Pages that more recordings have come first, and then by their mean place
// in them, each place as a share of its recording. Recordings without pages count for nothing.
// Several processes may merge at a time: nothing is lost. -ENOENT: no such image; -ENODATA: there
// is nothing to merge; -EINVAL: a page is beyond the image; -ESTALE: recorded of other content than
// the image's, or the image was replaced or removed meanwhile; -EBADMSG, -EPROTONOSUPPORT: the
// trace that is there cannot be read (replace does not read it); -EOVERFLOW: merged from too many
// recordings.
int fl_store_trace_merge(struct fl_store *store, const char *name,
                         const struct fl_recording *recordings, unsigned count, bool replace,
                         struct fl_error *ret_error);
// The trace of an image as one recording, in the order of touch and whatever content it was
// recorded of: to be merged into the trace of another, say. Free with fl_recording_free. -ENOENT,
// -EBADMSG, -EPROTONOSUPPORT.
int fl_store_trace_read(struct fl_store *store, const char *name,
                        struct fl_recording *ret_recording, struct fl_error *ret_error);
void fl_recording_free(struct fl_recording *recording);
// -ENOENT: the image has none, or there is no image and no trace of this name.
int fl_store_trace_rm(struct fl_store *store, const char *name, struct fl_error *ret_error);

// What replaying a trace costs, with the image as it is laid out.
struct fl_replay_cost {
    uint64_t pages;  // that are not zero
    uint64_t frames; // to be read and decompressed for them
    uint64_t pieces; // of files that these frames are: 1 is one sequential read
    uint64_t bytes;  // stored, of these frames
    uint64_t runs;   // ranges that can be installed at once, in the order of replay
};

struct fl_optimize_options {
    const char *name;
    struct fl_progress progress; // bytes of the working set, read and written
};

struct fl_optimize_result {
    uint64_t trace_pages;
    uint64_t zero_pages; // of them: they stay zero
    struct fl_replay_cost before, after;
    bool already;          // it was laid out in this way: nothing was written
    uint64_t stored_bytes; // of the new pack: what it costs, as cold copies stay where they are
    uint64_t image_bytes;  // of the new image file
    uint64_t pack_id;
    double seconds;
    bool index_not_updated, index_rebuilt;
    int index_error; // -errno or 0
};

// Puts the pages of the image's trace, in the order of replay, into a pack of their own, and the
// image with a new map in the place of the old one, atomically. Its content, content id and trace
// stay what they are; VMs that have the old one open go on with it. -ENOENT: no image, or no trace;
// -ESTALE: the trace is of other content, or the image was replaced or removed meanwhile.
int fl_store_optimize(struct fl_store *store, const struct fl_optimize_options *options,
                      struct fl_optimize_result *ret_result, struct fl_error *ret_error);

struct fl_repair_image {
    const char *name;
    uint64_t bad_pages;  // that were damaged
    uint64_t left;       // of them: not healed
    const char *problem; // it cannot be opened or written: why. NULL: none
};

struct fl_repair_options {
    const char *memory_path; // pages may come from this memory file; NULL: none
    const char *store_dir;   // and from all packs of this other store; NULL: none
    bool dry_run;            // say what would be, and write nothing
    // Called for each image that had damaged pages, or that cannot be opened.
    void (*image)(void *arg, const struct fl_repair_image *image);
    void *image_arg;
    struct fl_progress progress; // units of one source at a time
};

struct fl_repair_result {
    uint64_t bad_frames;   // that the store knows and that are bad still
    uint64_t wanted_pages; // of them that images need
    uint64_t found_pages;  // of these
    uint64_t images;       // that had damaged pages, or cannot be opened
    uint64_t images_left;  // of them: not all right
    uint64_t stored_bytes; // of the new pack, 0 if it needed none
    uint64_t pack_id;      // 0 if it needed none
    bool list_not_written; // the store could not remember what is healed
    bool index_not_updated, index_rebuilt;
    int index_error; // -errno or 0
    double seconds;
};

// Finds the pages of the frames that the store knows to be bad (fl_store_verify and fl_store_pack
// tell it) in the store's other packs, in what is left of the frames, in the memory file and in the
// other store; stores them in a new pack, and gives all images that need them a new map, each
// atomically: content, content id, trace and name stay. VMs that have an image open go on with what
// they have. 0 also if some pages were not found: they are in the result.
int fl_store_repair(struct fl_store *store, const struct fl_repair_options *options,
                    struct fl_repair_result *ret_result, struct fl_error *ret_error);

// Makes the name disappear, and its trace; the space comes back with fl_store_gc. Whoever has it
// open keeps it.
int fl_store_rm(struct fl_store *store, const char *name, struct fl_error *ret_error);

struct fl_gc_options {
    bool dry_run;                // report only
    bool rebuild_index;          // even if nothing seems to be wrong with it
    struct fl_progress progress; // objects
};

struct fl_gc_result {
    uint64_t packs_removed, packs_kept;
    uint64_t temporaries_removed;
    uint64_t traces_removed; // of images that are gone or have other content now
    uint64_t bytes_freed;    // packs, temporaries and traces
    uint64_t dead_bytes;     // of frames in the packs kept that no image refers to
    uint64_t packs_indexed;  // that the index did not know
    bool index_rebuilt;
    bool index_not_updated; // it could not be written: dedup may be missed, nothing else
    int index_error;        // why: -errno or 0
};

// Refuses (-EBADMSG) to remove any pack while an image cannot be read: its packs are not known.
int fl_store_gc(struct fl_store *store, const struct fl_gc_options *options,
                struct fl_gc_result *ret_result, struct fl_error *ret_error);

#endif
