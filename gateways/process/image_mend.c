/* SPDX-License-Identifier: Apache-2.0
 * image_mend.c - what a CRIU that was killed in the middle of a dump leaves in the rank, taken away (image.h).
 *
 * CRIU puts connections into repair mode, where they send nothing, and drops their packets by a table of its own in the rank's
 * network namespace.  What it changes in the processes themselves is image_undo.c's.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "image.h"
#include "rank_tree.h"

static void mend_socket(int fd)
{
    int is_repaired = 0;
    socklen_t len = sizeof is_repaired;
    const int off = 0;
    if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &is_repaired, &len) == 0 && is_repaired)
        setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off);
}

static void mend_process(void *arg, pid_t pid)
{
    (void)arg;
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    int pidfd = dir ? pidfd_open(pid, 0) : -1;
    struct dirent *entry;
    while (pidfd >= 0 && (entry = readdir(dir))) {
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, link, sizeof link - 1);
        if (n <= 0 || strncmp(link, "socket:", 7) != 0)
            continue;
        int fd = pidfd_getfd(pidfd, atoi(entry->d_name), 0);
        if (fd >= 0) {
            mend_socket(fd);
            close(fd);
        }
    }
    if (pidfd >= 0)
        close(pidfd);
    if (dir)
        closedir(dir);
}

/* All tables of the family that CRIU uses, in the calling thread's network namespace: a batch of one deletion without a name. */
static void flush_tables(void)
{
    struct {
        struct nlmsghdr head;
        struct nfgenmsg body;
    } batch[3] = {
        {.head = {.nlmsg_type = NFNL_MSG_BATCH_BEGIN},
         .body = {.res_id = htons(NFNL_SUBSYS_NFTABLES)}},
        {.head = {.nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE},
         .body = {.nfgen_family = NFPROTO_INET}},
        {.head = {.nlmsg_type = NFNL_MSG_BATCH_END},
         .body = {.res_id = htons(NFNL_SUBSYS_NFTABLES)}},
    };
    for (uint32_t i = 0; i < 3; i++) {
        batch[i].head.nlmsg_len = sizeof batch[i];
        batch[i].head.nlmsg_flags = NLM_F_REQUEST;
        batch[i].head.nlmsg_seq = i + 1;
    }
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd < 0)
        return;
    (void)send(fd, batch, sizeof batch, 0); /* done when it returns */
    close(fd);
}

void orri_image_mend(pid_t init, int rank_dir)
{
    char path[64];
    orri_image_undo(rank_dir);
    orri_tree_each(init, mend_process, NULL);
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)init);
    int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (own >= 0 && ns >= 0 && setns(ns, CLONE_NEWNET) == 0) {
        flush_tables();
        int rc = setns(own, CLONE_NEWNET);
        ORR_ASSERT(rc == 0);
    }
    if (ns >= 0)
        close(ns);
    if (own >= 0)
        close(own);
}
