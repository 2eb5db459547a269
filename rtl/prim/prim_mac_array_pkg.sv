// Timing and geometry of the multiply-accumulate array, common to its twins.
package prim_mac_array_pkg;
  // Rows that one DSP cascade sums. 8 * 127 * 128 = 130,048 is the longest sum of int8 products
  // that still fits the 18 bits below the upper product of a packed DSP.
  localparam int unsigned CascadeLen = 8;

  // Cycles from x_valid_i to the y_valid_o of the same row: input register, B, M and P register,
  // seven further cascade stages, unpacking, one adder level per doubling of the cascades.
  function automatic int unsigned latency(input int unsigned n);
    return 12 + unsigned'($clog2(n / CascadeLen));
  endfunction

  // 64-byte beats of one N x N tile.
  function automatic int unsigned beats(input int unsigned n);
    return n * n / 64;
  endfunction
endpackage
