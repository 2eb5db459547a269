// Decrypts and authenticates pages, or seals them: AES-128-GCM messages of BeatsPerPage 512-bit
// beats, 96-bit IV, no associated data, 128-bit tag. One beat a cycle, sustained across page
// boundaries.
//
// One header (IV) per page, in order, may arrive ahead of the page's beats; they are accepted once
// it was taken. The tag comes in the same order when it likes. Plaintext leaves PtLatency cycles
// after its beat and cannot be held back: reserve space before asking for a page.
// **Plaintext is not yet verified when it leaves.** The verdict is over the ciphertext and comes
// VerdictLatency cycles after the page's last beat, or 3 cycles after a late tag, in page order and
// before the page's last plaintext: lk_tile_ring keeps the page until then, and its end after it.
//
// Key: key_i is taken when key_valid_i rises or on key_load_i (key_valid_i high); key_ready_o rises
// when round keys and powers of H are there. Loading drops every page under way. wipe_i, or
// key_valid_i falling, zeroises at one clock edge; see lk_gcm_engine for what that covers.
// Sealing (seal_i): beats are plaintext and ciphertext leaves in their place; the page's tag comes
// 5 cycles after its last ciphertext beat.
// Byte order: byte b of every bus is bits [8*b+7:8*b] (IV byte 0 is the first one of the IV).
// Limits: BeatsPerPage 1..65,535; below 20 the header rate, not the beat rate, is the bound.
module lk_gcm #(
  parameter int unsigned BeatsPerPage = 64
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         seal_i,        // beats are plaintext; changes only before a key is loaded
  input  logic         key_valid_i,
  input  logic [127:0] key_i,
  input  logic         key_load_i,
  input  logic         wipe_i,
  output logic         key_ready_o,
  input  logic         hdr_valid_i,
  output logic         hdr_ready_o,
  input  logic [95:0]  hdr_iv_i,
  input  logic         hdr_tag_valid_i,  // in the order of headers
  output logic         hdr_tag_ready_o,
  input  logic [127:0] hdr_tag_i,
  input  logic         ct_valid_i,
  output logic         ct_ready_o,
  input  logic [511:0] ct_data_i,
  output logic         pt_valid_o,
  output logic [511:0] pt_data_o,
  output logic         pt_last_o,
  output logic         verdict_valid_o,
  output logic         verdict_ok_o,
  output logic         verdict_bad_o, // of one comparator alone; a page passes with ok and not bad
  output logic         tag_valid_o,   // sealing: the tag of the next page; its header's was zero
  output logic [127:0] tag_o
);
  if (BeatsPerPage < 1 || BeatsPerPage > 65535) begin : gen_bad_beats
    $fatal(1, "%m: BeatsPerPage must be 1 .. 65535, got %0d", BeatsPerPage);
  end

  lk_gcm_engine u_engine (
    .cfg_beats_i (16'(BeatsPerPage)),
    .cfg_ctr_i   (32'd2),
    .cfg_len_i   (lk_gcm_pkg::length_block(32'd0, 32'(BeatsPerPage * 512))),
    .*
  );
endmodule
