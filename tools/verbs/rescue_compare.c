// SPDX-License-Identifier: Apache-2.0
//
// Compares the pages that the VM has with images of the store. The comparison decides whether an
// image is the right one, where each region belongs in it, and which image it is if none was named.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rescue/memory_samples.h"
#include "engine/rescue/placement.h"
#include "engine/rescue/sample_matches.h"
#include "snapshot/read.h"
#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/verbs/rescue.h"

// If more images of the store have the VM's size, the rest are not compared.
enum { IMAGES_MAX = 64 };

// One image, and the result of the comparison with it.
struct candidate {
    struct fl_image *image;
    struct fl_layout layout;
    enum fl_layout_from from;
    struct fl_image_match evidence;
};

struct compare {
    struct rescue *rescue;
    struct fl_orphan *orphan;
    struct fl_reader *reader;
    struct fl_samples samples;
    struct fl_match *match;
    size_t looked; // images of the VM's size that were compared
    struct candidate best;
    char rival[FL_IMAGE_NAME_BYTES]; // an image that fits as well as the best, or better; or ""
};

static uint64_t rounded_bytes(const struct fl_orphan *orphan, const struct fl_image *image)
{
    uint64_t page = orphan->range[0].page_bytes;
    return page == 0 ? 0 : (fl_image_bytes(image) + page - 1) / page * page;
}

// --- one image ---

static void find_layout(const struct compare *compare, struct candidate *candidate)
{
    const struct fl_orphan *orphan = compare->orphan;
    struct fl_placement_of of = {.range = orphan->range,
                                 .ranges = orphan->ranges,
                                 .samples = &compare->samples,
                                 .match = compare->match,
                                 .image_bytes = rounded_bytes(orphan, candidate->image)};
    candidate->from = FL_LAYOUT_FOUND;
    if (fl_placement_find(&of, &candidate->layout) == 0)
        return;
    // Too few pages tell where the regions belong, so the pages are counted against the simplest
    // layout.
    candidate->from = fl_orphan_one_region(orphan, of.image_bytes, &candidate->layout)
                          ? FL_LAYOUT_ASSUMED
                          : FL_LAYOUT_UNKNOWN;
}

static int compare_image(const struct compare *compare, struct candidate *candidate)
{
    const struct fl_orphan *orphan = compare->orphan;
    int error = fl_matches_find(&compare->samples, candidate->image, compare->match);
    if (error)
        return error;
    candidate->layout = orphan->layout;
    candidate->from = orphan->layout_from;
    if (candidate->from == FL_LAYOUT_UNKNOWN)
        find_layout(compare, candidate);
    if (candidate->from != FL_LAYOUT_UNKNOWN)
        fl_image_match(&compare->samples, compare->match, &candidate->layout, candidate->image,
                       &candidate->evidence);
    return 0;
}

static bool candidate_fits(const struct candidate *candidate)
{
    return candidate->from != FL_LAYOUT_UNKNOWN && candidate->evidence.verdict == FL_FIT_YES;
}

// --- other images of the store ---

static bool is_same_content(const struct fl_image *one, const struct fl_image *other)
{
    struct fl_image_id a = fl_image_id(one);
    struct fl_image_id b = fl_image_id(other);
    return a.word[0] == b.word[0] && a.word[1] == b.word[1];
}

static void name_rival(struct compare *compare, const struct fl_image *image)
{
    snprintf(compare->rival, sizeof(compare->rival), "%s", fl_image_name(image));
}

// Notes the other image as a rival if more of the VM's pages are its than the named image's. An
// image that cannot be read is no rival.
static void try_rival(struct compare *compare, const struct fl_image *other)
{
    struct fl_image_match_rivals rivals;
    const struct candidate *best = &compare->best;
    if (!is_same_content(best->image, other) &&
        fl_image_match_compare(&compare->samples, &best->layout, best->image, other, &rivals) ==
            0 &&
        fl_image_match_prefers_other(&rivals))
        name_rival(compare, other);
}

// Keeps the better one of two images that fit. If none is better, the second is noted as a rival,
// and the user must choose.
static void choose_candidate(struct compare *compare, struct candidate *candidate)
{
    struct candidate *best = &compare->best;
    struct fl_image_match_rivals rivals = {0};
    bool other = !best->image;
    if (best->image && !is_same_content(best->image, candidate->image)) {
        if (fl_image_match_compare(&compare->samples, &best->layout, best->image, candidate->image,
                                   &rivals) != 0)
            return;
        struct fl_image_match_rivals turned = {rivals.other, rivals.image};
        other = fl_image_match_prefers_other(&rivals);
        if (!other && !fl_image_match_prefers_other(&turned))
            name_rival(compare, candidate->image);
    }
    if (!other)
        return;
    struct fl_image *left = best->image;
    *best = *candidate;
    candidate->image = left;
    compare->rival[0] = '\0';
}

static void try_unnamed(struct compare *compare, struct fl_image *image)
{
    struct candidate candidate = {.image = fl_image_ref(image)};
    if (compare_image(compare, &candidate) == 0 && candidate_fits(&candidate))
        choose_candidate(compare, &candidate);
    fl_image_unref(candidate.image);
}

// True if the image is as large as the VM's memory, as Firecracker's memory files are. Other images
// are not read.
static bool has_its_size(const struct compare *compare, const char *name)
{
    struct fl_image *image = NULL;
    if (fl_image_open_lazy(compare->reader, name, &image) != 0)
        return false;
    bool same = rounded_bytes(compare->orphan, image) == fl_orphan_bytes(compare->orphan);
    fl_image_unref(image);
    return same;
}

static int try_image(void *arg, const char *name)
{
    struct compare *compare = arg;
    struct fl_image *image = NULL;
    if ((compare->rescue->image && strcmp(name, compare->rescue->image) == 0) ||
        compare->looked == IMAGES_MAX || !has_its_size(compare, name) ||
        fl_image_open(compare->reader, name, &image) != 0)
        return 0;
    compare->looked++;
    if (compare->rescue->image)
        try_rival(compare, image);
    else
        try_unnamed(compare, image);
    fl_image_unref(image);
    return 0;
}

// --- sentences ---

static int refuse_unread(const struct compare *compare, int error)
{
    const struct rescue *rescue = compare->rescue;
    const struct fl_orphan *orphan = compare->orphan;
    const char *image = rescue->image;
    if (!image)
        return cli_fail_errno("rescue", error,
                              "it is not known which image %s (pid %d) was restored from: name it "
                              "with --image; the images of the store %s (see --store) cannot be "
                              "compared with it",
                              orphan->name, (int)orphan->pid, rescue->store);
    if (error == -ENOENT && !compare->reader)
        return cli_fail("rescue",
                        "the memory of %s (pid %d) cannot be compared with image %s: " FL_NO_STORE
                        " (or use --force)",
                        orphan->name, (int)orphan->pid, image, rescue->store);
    return cli_fail_errno("rescue", error,
                          "the memory of %s (pid %d) cannot be compared with image %s of the store "
                          "%s (see --store, or use --force)",
                          orphan->name, (int)orphan->pid, image, rescue->store);
}

static int refuse_unnamed(const struct compare *compare)
{
    const struct rescue *rescue = compare->rescue;
    const struct fl_orphan *orphan = compare->orphan;
    if (compare->best.image)
        return cli_fail("rescue",
                        "it is not known which image %s (pid %d) was restored from: the pages that "
                        "it has fit %s and %s; name the image with --image",
                        orphan->name, (int)orphan->pid, fl_image_name(compare->best.image),
                        compare->rival);
    return cli_fail("rescue",
                    "it is not known which image %s (pid %d) was restored from: name it with "
                    "--image; none fits of the %zu image%s of the store %s that are as large as "
                    "its memory",
                    orphan->name, (int)orphan->pid, compare->looked, cli_s(compare->looked),
                    rescue->store);
}

static int refuse_evidence(const struct compare *compare)
{
    const struct rescue *rescue = compare->rescue;
    const struct fl_orphan *orphan = compare->orphan;
    const struct fl_image_match *evidence = &rescue->evidence;
    if (orphan->layout.regions == 0)
        cli_fail("rescue",
                 "it cannot be told which part of image %s each piece of the memory of %s (pid %d) "
                 "is: it was restored from another image, or --regions must tell it; otherwise use "
                 "--poison or --kill",
                 rescue->image, orphan->name, (int)orphan->pid);
    else if (evidence->verdict == FL_FIT_NO)
        cli_fail("rescue",
                 "the memory of %s (pid %d) is not that of image %s: it was restored from another, "
                 "or its regions are in other places (--regions says which), or its guest has "
                 "changed nearly all of it (then use --force)",
                 orphan->name, (int)orphan->pid, rescue->image);
    else
        cli_fail("rescue",
                 "too little of the memory of %s (pid %d) can be compared to say that it is that "
                 "of image %s; --force takes your word for it",
                 orphan->name, (int)orphan->pid, rescue->image);
    rescue_say_evidence(stderr, rescue, orphan);
    rescue_say_ranges(stderr, orphan);
    return EXIT_FAILED;
}

static int refuse_rival(const struct compare *compare)
{
    const struct rescue *rescue = compare->rescue;
    cli_fail("rescue",
             "the memory of %s (pid %d) is rather that of image %s than that of image %s: of the "
             "pages in which the two differ, most are as in %s; --force takes %s all the same",
             compare->orphan->name, (int)compare->orphan->pid, compare->rival, rescue->image,
             compare->rival, rescue->image);
    rescue_say_evidence(stderr, rescue, compare->orphan);
    return EXIT_FAILED;
}

// --- decisions ---

static void take_best(const struct compare *compare)
{
    const struct candidate *best = &compare->best;
    compare->orphan->layout_from = best->from;
    compare->orphan->layout = best->layout;
    compare->rescue->evidence = best->evidence;
    compare->rescue->compared = true;
}

static int judge_named(struct compare *compare)
{
    struct rescue *rescue = compare->rescue;
    int error = fl_image_open(compare->reader, rescue->image, &compare->best.image);
    if (!error)
        error = compare_image(compare, &compare->best);
    if (error)
        return refuse_unread(compare, error);
    take_best(compare);
    if (!candidate_fits(&compare->best))
        return refuse_evidence(compare);
    fl_reader_list(compare->reader, try_image, compare);
    return compare->rival[0] != '\0' ? refuse_rival(compare) : EXIT_DONE;
}

static int judge_unnamed(struct compare *compare)
{
    struct rescue *rescue = compare->rescue;
    fl_reader_list(compare->reader, try_image, compare);
    if (!compare->best.image || compare->rival[0] != '\0')
        return refuse_unnamed(compare);
    snprintf(rescue->image_found, sizeof(rescue->image_found), "%s",
             fl_image_name(compare->best.image));
    rescue->image = rescue->image_found;
    take_best(compare);
    return EXIT_DONE;
}

// With --force the comparison still finds the layout and is reported, but does not refuse.
static int take_forced(struct compare *compare, int error)
{
    struct fl_orphan *orphan = compare->orphan;
    if (!error)
        error = fl_image_open(compare->reader, compare->rescue->image, &compare->best.image);
    if (!error)
        error = compare_image(compare, &compare->best);
    if (!error)
        take_best(compare);
    if (orphan->layout_from == FL_LAYOUT_UNKNOWN &&
        fl_orphan_one_region(orphan, 0, &orphan->layout))
        orphan->layout_from = FL_LAYOUT_ASSUMED;
    return orphan->layout_from == FL_LAYOUT_UNKNOWN ? refuse_evidence(compare) : EXIT_DONE;
}

static int open_all(struct compare *compare)
{
    const struct fl_orphan *orphan = compare->orphan;
    int error = fl_reader_open(compare->rescue->store, &compare->reader);
    if (!error)
        error = fl_samples_take(orphan->pid, orphan->pidfd, orphan->range, orphan->ranges,
                                &compare->samples);
    if (!error) {
        compare->match = calloc(compare->samples.count + 1, sizeof(*compare->match));
        error = compare->match ? 0 : -ENOMEM;
    }
    return error;
}

int rescue_compare(struct rescue *rescue, struct fl_orphan *orphan)
{
    struct compare compare = {.rescue = rescue, .orphan = orphan};
    int error = open_all(&compare);
    int status = EXIT_FAILED;
    if (rescue->force && rescue->image)
        status = take_forced(&compare, error);
    else if (error)
        status = refuse_unread(&compare, error);
    else
        status = rescue->image ? judge_named(&compare) : judge_unnamed(&compare);
    fl_image_unref(compare.best.image);
    free(compare.match);
    fl_samples_free(&compare.samples);
    fl_reader_close(compare.reader);
    return status;
}
