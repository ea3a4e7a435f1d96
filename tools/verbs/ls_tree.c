// SPDX-License-Identifier: Apache-2.0
#include "tools/verbs/ls_tree.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/cli/exit_status.h"
#include "tools/cli/store_cli.h"

struct node {
    struct fl_image_info info;
    size_t parent; // NONE: it has none, or that one is gone
    bool told;
};
#define NONE SIZE_MAX

struct tree {
    struct node *nodes; // sorted by name
    size_t count;
};

// An image that was replaced by one of other content is not the parent any more.
static size_t find_parent(const struct tree *tree, const struct fl_image_info *info)
{
    for (size_t i = 0; info->parent[0] != '\0' && i < tree->count; i++) {
        const struct fl_image_info *other = &tree->nodes[i].info;
        if (strcmp(other->name, info->parent) == 0 &&
            memcmp(other->content_id, info->parent_content_id, sizeof(other->content_id)) == 0)
            return i;
    }
    return NONE;
}

static void print_node(const struct node *node, unsigned depth)
{
    char bytes[32];
    char created[32];
    const struct fl_image_info *info = &node->info;
    int indent = (int)(2 * depth);
    int width = 48 - indent;
    store_format_time(info->created, created, sizeof(created));
    printf("%*s%-*s %12s  %s", indent, "", width > 1 ? width : 1, info->name,
           cli_format_bytes(info->bytes, bytes, sizeof(bytes)), created);
    if (info->parent[0] != '\0' && node->parent == NONE)
        printf("  of %s, which is gone or has other content", info->parent);
    putchar('\n');
}

// A circle is possible if images were replaced by others of the same content: each comes once.
static void print_below(struct tree *tree, size_t at, unsigned depth)
{
    if (tree->nodes[at].told)
        return;
    tree->nodes[at].told = true;
    print_node(&tree->nodes[at], depth);
    for (size_t i = 0; i < tree->count; i++) {
        if (tree->nodes[i].parent == at)
            print_below(tree, i, depth + 1);
    }
}

static int look(struct fl_store *store, char *const *names, size_t count, struct tree *tree)
{
    int status = EXIT_DONE;
    for (size_t i = 0; i < count; i++) {
        struct fl_error error;
        int r = fl_store_image_info(store, names[i], &tree->nodes[tree->count].info, &error);
        if (r == 0)
            tree->count++;
        else if (r != -ENOENT) // removed since they were listed
            status = cli_fail("ls", "%s", error.text);
    }
    return status;
}

int ls_print_tree(struct fl_store *store, char *const *names, size_t count)
{
    struct tree tree = {.nodes = calloc(count + 1, sizeof(struct node))};
    if (!tree.nodes)
        return cli_fail("ls", "there is no memory for the list");
    int status = look(store, names, count, &tree);
    for (size_t i = 0; i < tree.count; i++)
        tree.nodes[i].parent = find_parent(&tree, &tree.nodes[i].info);
    for (size_t i = 0; i < tree.count; i++) {
        if (tree.nodes[i].parent == NONE)
            print_below(&tree, i, 0);
    }
    for (size_t i = 0; i < tree.count; i++)
        print_below(&tree, i, 0);
    free(tree.nodes);
    return status;
}
