/* Says that it ran. Built as hello, as other (the same with another word) and dynamically linked. */
#include <stdio.h>

#ifdef OTHER
#define WORD "other"
#else
#define WORD "hello"
#endif

int main(int argc, char **argv)
{
	printf(WORD " ran as %s\n", argc > 0 ? argv[0] : "");
	return 0;
}
