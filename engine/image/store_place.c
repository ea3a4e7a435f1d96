// SPDX-License-Identifier: Apache-2.0
#include "engine/image/store_place.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fl_store_place {
    const char *store;
    char images_dir[PATH_MAX];
    pthread_mutex_t lock;     // what follows; never held over I/O
    struct fl_reader *reader; // of when it was asked for last; NULL: there was none
    int error;                // why not
};

int fl_store_place_new(const char *store, struct fl_store_place **ret_place)
{
    struct fl_store_place *place = calloc(1, sizeof(*place));
    if (!place)
        return -ENOMEM;
    place->store = store;
    if (snprintf(place->images_dir, sizeof(place->images_dir), "%s/images", store) >=
        (int)sizeof(place->images_dir)) {
        free(place);
        return -ENAMETOOLONG;
    }
    pthread_mutex_init(&place->lock, NULL);
    *ret_place = place;
    return 0;
}

void fl_store_place_free(struct fl_store_place *place)
{
    if (!place)
        return;
    fl_reader_close(place->reader);
    pthread_mutex_destroy(&place->lock);
    free(place);
}

const char *fl_store_images_dir(const struct fl_store_place *place)
{
    return place->images_dir;
}

static struct fl_reader *last_reader(struct fl_store_place *place)
{
    pthread_mutex_lock(&place->lock);
    struct fl_reader *reader = place->reader ? fl_reader_ref(place->reader) : NULL;
    pthread_mutex_unlock(&place->lock);
    return reader;
}

// Another thread may have opened it as well meanwhile: both are good.
static void remember_reader(struct fl_store_place *place, struct fl_reader *reader, int error)
{
    pthread_mutex_lock(&place->lock);
    struct fl_reader *before = place->reader;
    place->reader = reader ? fl_reader_ref(reader) : NULL;
    place->error = error;
    pthread_mutex_unlock(&place->lock);
    fl_reader_close(before);
}

static bool is_shortage(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

int fl_store_place_get(struct fl_store_place *place, struct fl_reader **ret_reader)
{
    struct fl_reader *reader = last_reader(place);
    if (reader && fl_reader_still_there(reader)) {
        *ret_reader = reader;
        return 0;
    }
    fl_reader_close(reader);
    reader = NULL;
    int error = fl_reader_open(place->store, &reader);
    remember_reader(place, reader, error);
    *ret_reader = reader;
    return error && !is_shortage(error) ? FL_NO_STORE_NOW : error;
}

void fl_store_place_why(struct fl_store_place *place, struct fl_error *ret_error)
{
    pthread_mutex_lock(&place->lock);
    int error = place->error;
    pthread_mutex_unlock(&place->lock);
    const char *why = error == -EPROTONOSUPPORT ? "this program does not know its version"
                      : error == -EBADMSG       ? "its marker faultline-store is damaged"
                                                : strerror(-error);
    if (error == -ENOENT)
        fl_fail_plain(ret_error, error, FL_NO_STORE, place->store);
    else
        fl_fail_plain(ret_error, error, "the store %s cannot be opened: %s", place->store, why);
}
