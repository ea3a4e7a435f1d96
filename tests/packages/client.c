// SPDX-License-Identifier: Apache-2.0
//
// A program of a user, compiled against what is installed and nothing else.
//
//   client                   nothing listens: says so, and ends with 0
//   client SOCKET FILE       maps the image, waits for a line on stdin before each half of it, and
//                            compares with FILE what it touches
#include <errno.h>
#include <faultline_client.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char *read_file(const char *path, size_t *ret_bytes)
{
    FILE *file = fopen(path, "r");
    long bytes = -1;
    unsigned char *data = NULL;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0)
        bytes = ftell(file);
    if (bytes > 0 && fseek(file, 0, SEEK_SET) == 0)
        data = malloc((size_t)bytes);
    if (data != NULL && fread(data, 1, (size_t)bytes, file) != (size_t)bytes) {
        free(data);
        data = NULL;
    }
    if (file != NULL)
        fclose(file);
    *ret_bytes = bytes > 0 ? (size_t)bytes : 0;
    return data;
}

// Returns whether memory has the file's bytes from begin to end.
static int compare(const unsigned char *memory, const unsigned char *file, size_t begin, size_t end)
{
    if (memcmp(memory + begin, file + begin, end - begin) == 0)
        return 1;
    printf("WRONG BYTES between %zu and %zu\n", begin, end);
    return 0;
}

static int touch(const char *socket, const char *path)
{
    size_t bytes;
    unsigned char *file = read_file(path, &bytes);
    if (file == NULL || bytes % FL_CLIENT_PAGE != 0) {
        fprintf(stderr, "%s is no memory file\n", path);
        return 1;
    }
    struct fl_client *client;
    void *memory;
    int error = fl_client_map(socket, bytes, FL_CLIENT_PAGE, &client, &memory);
    if (error != 0) {
        fprintf(stderr, "fl_client_map: %s\n", strerror(-error));
        return 1;
    }
    setlinebuf(stdout);
    puts("mapped");
    int good = 1;
    for (size_t half = 0; half < 2 && good; half++) {
        if (getchar() == EOF)
            return 1;
        good = compare(memory, file, half * (bytes / 2), half == 0 ? bytes / 2 : bytes);
        printf("half %zu\n", half + 1);
    }
    fl_client_close(client);
    free(file);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 3)
        return touch(argv[1], argv[2]);
    struct fl_client *client;
    void *memory;
    int error =
        fl_client_map("/nowhere/to/be.found", FL_CLIENT_PAGE, FL_CLIENT_PAGE, &client, &memory);
    printf("fl_client_map: %s\n", strerror(-error));
    return error == -ENOENT ? 0 : 1;
}
