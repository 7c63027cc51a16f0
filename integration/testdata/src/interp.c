/* An interpreter for #! scripts: prints the arguments of each line that begins with "echo ". */
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	char line[4096];
	FILE *f;

	if (argc < 2 || (f = fopen(argv[1], "r")) == NULL) {
		perror(argc < 2 ? "usage: interp SCRIPT" : argv[1]);
		return 1;
	}
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, "echo ", 5) == 0)
			fputs(line + 5, stdout);
	fclose(f);
	return 0;
}
