/* SHIM_PROGRAM is the path of the program just built, from the Makefile. */
	.section .rodata
	.globl shim_image_start, shim_image_end
	.balign 16
shim_image_start:
	.incbin SHIM_PROGRAM
shim_image_end:
	.section .note.GNU-stack, "", %progbits
