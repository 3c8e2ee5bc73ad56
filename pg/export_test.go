package pg

import (
	"bufio"
	"io"
)

// Tap reads a server's messages from r as a connection does. From least bytes on,
// large is asked about the last values in rows of the statement number at.
func Tap(r io.Reader, least, at int, large LargeFunc) io.Reader {
	t := &tap{src: bufio.NewReaderSize(r, 16), least: least}
	t.set(at, large)
	return t
}
