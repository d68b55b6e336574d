/* Intrusive doubly linked lists. A node knows whether it is linked; removing an unlinked node does nothing. */
#ifndef CNK_BASE_LIST_H
#define CNK_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct cnk_list {
    struct cnk_list *next, *prev;
} cnk_list; /* a head, or a node */

#define CNK_CONTAINER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))
#define CNK_LIST_EACH(it, head)                                                                                        \
    for (cnk_list *it = (head)->next, *it##_next = it->next; it != (head); it = it##_next, it##_next = it->next)

static inline void cnk_list_init(cnk_list *l) { l->next = l->prev = l; }
static inline bool cnk_list_empty(const cnk_list *l) { return l->next == l; }
static inline bool cnk_list_linked(const cnk_list *n) { return n->next != NULL && n->next != n; }
static inline void cnk_list_push_back(cnk_list *head, cnk_list *n) {
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}
static inline void cnk_list_push_front(cnk_list *head, cnk_list *n) {
    n->next = head->next;
    n->prev = head;
    head->next->prev = n;
    head->next = n;
}
static inline void cnk_list_remove(cnk_list *n) {
    if (n->next) {
        n->next->prev = n->prev;
        n->prev->next = n->next;
    }
    n->next = n->prev = n;
}
static inline cnk_list *cnk_list_pop_front(cnk_list *head) {
    cnk_list *n = head->next;
    if (n == head) return NULL;
    cnk_list_remove(n);
    return n;
}

#endif
