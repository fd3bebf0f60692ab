# The guest that probes an accelerator: a boot sector that goes from real mode
# to 64-bit mode under page tables of its own, makes the processor trap a
# thousand times, and ends QEMU by its debug exit device.
#
#	as -o probe.o probe.asm
#	ld -Ttext 0x7c00 --oformat binary -o probe.bin probe.o

.code16
.globl _start
_start:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	# Page tables at 0x1000, 0x2000, 0x3000: one page of 2 MiB, where it is.
	movw	$0x1000, %di
	movw	$0x1800, %cx
	rep stosw
	movw	$0x2003, 0x1000
	movw	$0x3003, 0x2000
	movw	$0x0083, 0x3000
	lgdt	gdtr
	movl	$0x20, %eax		# CR4.PAE
	movl	%eax, %cr4
	movl	$0x1000, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	# EFER.LME
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000001, %eax	# CR0.PG and CR0.PE
	movl	%eax, %cr0
	ljmp	$8, $long

.code64
long:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %ss
	movl	$1000, %esi
1:	xorl	%eax, %eax
	cpuid
	decl	%esi
	jnz	1b
	movb	$0x2a, %al
	outb	%al, $0xf4
2:	hlt
	jmp	2b

.align 8
gdt:	.quad	0, 0x00209a0000000000, 0x0000920000000000
gdtr:	.word	23
	.long	gdt
.org 510
	.word	0xaa55
