// How the taps of a depthwise window are numbered. Row and column count from the newest pixel, and
// the numbers run in rings around it, so that the n x n corner of any window holds the first n * n
// numbers: a small kernel needs the first multipliers only, whatever the size of the window.
package lk_dw_pkg;
  function automatic int unsigned ring(input int unsigned row, input int unsigned col);
    int unsigned m;
    m = row > col ? row : col;
    return m * m + (row == m ? col : m + 1 + row);
  endfunction
endpackage
