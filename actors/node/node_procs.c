/* SPDX-License-Identifier: Apache-2.0
 * node_procs.c - the processes of a rank that are stopped, each with the device memory that it has given away.
 *
 * A rank may start others that use devices, too (a launcher and its workers): each has the library, an arena and a pid of its own.
 * /edge/rank lists them; the list here is what it said last.  In a part, an arena is the file `arena-<process>`, by the pid that the
 * process has in its rank, which it keeps in an image.
 */
#include "node_calls.h"

struct node_proc *node_proc_first(const struct node *self, const struct node_row *row)
{
    return orr_pool_at(&self->procs, row->first_proc);
}

struct node_proc *node_proc_next(const struct node *self, const struct node_proc *proc)
{
    return orr_pool_at(&self->procs, proc->next);
}

void node_procs_drop(struct node *self, struct node_row *row)
{
    for (struct node_proc *proc; (proc = node_proc_first(self, row)) != NULL;) {
        row->first_proc = proc->next;
        orr_pool_give(&self->procs, proc);
    }
}

struct node_proc *
node_proc_get(struct node *self, struct node_row *row, uint32_t process)
{
    uint32_t *at = &row->first_proc;
    for (struct node_proc *proc; (proc = orr_pool_at(&self->procs, *at)) != NULL;) {
        if (proc->process == process)
            return proc;
        at = &proc->next;
    }
    struct node_proc *fresh = orr_pool_take(&self->procs);
    if (!fresh)
        return NULL;
    *fresh = (struct node_proc){.next = ORR_NONE, .process = process};
    *at = orr_pool_index(&self->procs, fresh);
    return fresh;
}

bool node_procs_heard(struct node *self,
                      struct node_group *group,
                      struct orr_list_rank_arena arenas)
{
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row)) {
        node_procs_drop(self, row);
        row->arena_bytes = 0;
    }
    for (uint32_t i = 0; i < arenas.n; i++) {
        const struct orr_rec_rank_arena *arena = &arenas.at[i];
        struct node_row *row = node_row_find(self, group, arena->rank);
        struct node_proc *proc = row ? node_proc_get(self, row, arena->process) : NULL;
        if (row && !proc)
            return false;
        if (!row)
            continue;
        orr_str_copy(proc->arena, sizeof(proc->arena), arena->path);
        proc->bytes = arena->bytes;
        proc->pid = arena->pid;
        row->arena_bytes += arena->bytes;
    }
    for (struct node_row *row = node_row_first(self, group); row;
         row = node_row_next(self, row))
        row->is_held = row->arena_bytes > 0;
    return true;
}

/* ---- as files of a part ---- */

uint32_t node_procs_files(const struct node *self,
                          const struct node_row *row,
                          struct node_files *files)
{
    uint32_t n = 0;
    for (const struct node_proc *proc = node_proc_first(self, row);
         proc && n < ORR_RANK_PROCS_MAX;
         proc = node_proc_next(self, proc)) {
        if (!proc->bytes || !proc->arena[0])
            continue;
        if (row->has_one_arena)
            snprintf(files->names[n], sizeof(files->names[n]), "arena");
        else
            snprintf(
                files->names[n], sizeof(files->names[n]), "arena-%u", proc->process);
        files->at[n] = (struct orr_rec_store_file){
            .name = orr_str(files->names[n]), .path = orr_str(proc->arena), .kind = 1};
        n++;
    }
    return n;
}

void node_procs_write(const struct node *self,
                      const struct node_row *row,
                      char *dst,
                      size_t cap)
{
    size_t used = 0;
    dst[0] = '\0';
    for (const struct node_proc *proc = node_proc_first(self, row);
         proc && used < cap - 1;
         proc = node_proc_next(self, proc))
        if (proc->bytes)
            used += (size_t)snprintf(dst + used,
                                     cap - used,
                                     "%s%u:%llu",
                                     used ? " " : "",
                                     proc->process,
                                     (unsigned long long)proc->bytes);
}

static bool read_number(const char **at, char end, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    const char *p = *at;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (value > (max - digit) / 10)
            return false;
        value = 10 * value + digit;
    }
    if (p == *at || (*p != end && *p != '\0') || (*p == '\0' && end == ':'))
        return false;
    *at = *p ? p + 1 : p;
    *ret = value;
    return true;
}

bool node_procs_read(struct node *self,
                     struct node_row *row,
                     const struct orr_rec_part *part)
{
    char text[ORR_PART_ARENAS_MAX];
    uint64_t process, bytes, sum = 0;
    node_procs_drop(self, row);
    row->has_one_arena = part->arenas.len == 0; /* before version 3 */
    if (row->has_one_arena)
        snprintf(text,
                 sizeof(text),
                 "%u:%llu",
                 part->process,
                 (unsigned long long)part->arena_bytes);
    else if (part->arenas.len < sizeof(text))
        orr_str_copy(text, sizeof(text), part->arenas);
    else
        return false;
    for (const char *at = text; *at && part->arena_bytes;) {
        if (!read_number(&at, ':', UINT32_MAX, &process) ||
            !read_number(&at, ' ', UINT64_MAX, &bytes) || bytes > UINT64_MAX - sum)
            return false;
        struct node_proc *proc = node_proc_get(self, row, (uint32_t)process);
        if (!proc || proc->bytes || !bytes)
            return false;
        proc->bytes = bytes;
        sum += bytes;
    }
    row->arena_bytes = part->arena_bytes;
    row->is_held = sum > 0;
    return sum == part->arena_bytes;
}
