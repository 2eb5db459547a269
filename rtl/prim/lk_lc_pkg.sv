// Life-cycle codes as they stand in the fuses.
//
// Sparse 16-bit codes, pairwise Hamming distance at least 6, at least 2 from all-zero and all-one.
// Each code is a superset of the one before: fuses only burn from 0 to 1, so a device can move
// forward but never back, and a burn that stops half-way leaves a code that means nothing. Anything
// but the three codes, all-zero included, is invalid and must be treated as locked: compare for
// equality with the state you need, never for inequality with another.
//
// SEC_CM: LC.CODE.SPARSE
package lk_lc_pkg;
  typedef logic [15:0] lc_code_t;

  parameter lc_code_t LcOpen     = 16'h0240;  // may be enrolled
  parameter lc_code_t LcEnrolled = 16'h5A69;  // may operate; never enrols again
  parameter lc_code_t LcLocked   = 16'h7FFB;  // retired for good

  // True for the three codes above.
  function automatic logic lc_is_valid(lc_code_t code);
    return code == LcOpen || code == LcEnrolled || code == LcLocked;
  endfunction

  // True for LcLocked and for every invalid code.
  function automatic logic lc_is_locked(lc_code_t code);
    return !(code == LcOpen || code == LcEnrolled);
  endfunction
endpackage
