/* SPDX-License-Identifier: Apache-2.0
 * tsan_zmq.c - tell ThreadSanitizer what it cannot see: libzmq is not built with it, so what one thread hands to another
 * through libzmq (a frame, and the word that it may be freed) looks unordered.  For tests that link the ZeroMQ transport.
 */
const char *__tsan_default_suppressions(void);

__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libzmq.so\n"
           "race:libzmq.so\n"
           "race:chunk_release\n";
}
