#include "base/footprint.h"

#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static int shrink_object(struct dl_phdr_info *object, size_t n_bytes, void *arg)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	(void)n_bytes;
	(void)arg;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];
		uintptr_t at = object->dlpi_addr + part->p_vaddr;

		/* what may be written is not as in the file */
		if (part->p_type == PT_LOAD && !(part->p_flags & PF_W))
			madvise((void *)(at & ~(page - 1)), part->p_memsz + (at & (page - 1)),
				MADV_DONTNEED);
	}
	return 0;
}

void footprint_shrink(void)
{
	malloc_trim(0);
	dl_iterate_phdr(shrink_object, NULL);
}
