// Bench: the hash, MAC, cipher and unwrapping cores of the key block side by side.
//
// The unwrapper stands here in five sizes, those for which NIST publishes vectors, and in the size
// the key block uses. `kwp_sel_i` names the one that starts; the ciphertext lies in a memory that
// the test writes word by word.
module key_prims_bench (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          wipe_i,
  // hash / MAC
  input  logic          hm_start_i,
  input  logic          hm_hmac_i,
  input  logic [255:0]  hm_key_i,
  input  logic          hm_valid_i,
  output logic          hm_ready_o,
  input  logic [31:0]   hm_data_i,
  input  logic [2:0]    hm_bytes_i,
  input  logic          hm_last_i,
  output logic          hm_busy_o,
  output logic          hm_done_o,
  output logic [255:0]  hm_digest_o,
  // plain hash core
  input  logic          sha_start_i,
  input  logic          sha_valid_i,
  output logic          sha_ready_o,
  output logic          sha_busy_o,
  output logic          sha_done_o,
  output logic [255:0]  sha_digest_o,
  // block cipher
  input  logic          aes_load_i,
  input  logic          aes_start_i,
  input  logic [255:0]  aes_key_i,
  input  logic [127:0]  aes_block_i,
  output logic          aes_busy_o,
  output logic          aes_done_o,
  output logic [127:0]  aes_block_o,
  // unwrapping
  input  logic          ct_we_i,
  input  logic [7:0]    ct_addr_i,
  input  logic [31:0]   ct_data_i,
  input  logic [5:0]    kwp_start_i,
  input  logic [2:0]    kwp_sel_i,
  output logic          kwp_done_o,
  output logic          kwp_ok_o,
  output logic [4095:0] kwp_pt_o
);
  logic [2:0] key_idx;
  lk_hmac_sha256 u_hmac (
    .clk_i,
    .rst_ni,
    .wipe_i,
    .start_i    (hm_start_i),
    .hmac_i     (hm_hmac_i),
    .key_idx_o  (key_idx),
    .key_word_i (hm_key_i[32*key_idx +: 32]),
    .in_valid_i (hm_valid_i),
    .in_ready_o (hm_ready_o),
    .in_data_i  (hm_data_i),
    .in_bytes_i (hm_bytes_i),
    .in_last_i  (hm_last_i),
    .busy_o     (hm_busy_o),
    .done_o     (hm_done_o),
    .digest_o   (hm_digest_o)
  );

  lk_sha256 u_sha256 (
    .clk_i,
    .rst_ni,
    .wipe_i,
    .start_i    (sha_start_i),
    .in_valid_i (sha_valid_i),
    .in_ready_o (sha_ready_o),
    .in_data_i  (hm_data_i),
    .in_bytes_i (hm_bytes_i),
    .in_last_i  (hm_last_i),
    .busy_o     (sha_busy_o),
    .done_o     (sha_done_o),
    .digest_o   (sha_digest_o)
  );

  lk_aes256_inv u_aes (
    .clk_i,
    .rst_ni,
    .wipe_i,
    .load_i  (aes_load_i),
    .key_i   (aes_key_i),
    .start_i (aes_start_i),
    .block_i (aes_block_i),
    .busy_o  (aes_busy_o),
    .done_o  (aes_done_o),
    .block_o (aes_block_o)
  );

  logic [31:0] ct_mem [256];
  always_ff @(posedge clk_i) if (ct_we_i) ct_mem[ct_addr_i] <= ct_data_i;

  // Plaintext bytes 1, 8, 9, 31, 512 (the vectors' 8, 64, 72, 248, 4096 bits), and 48.
  localparam int unsigned Bytes [6] = '{1, 8, 9, 31, 512, 48};
  logic [5:0]    done, ok, busy;
  logic [4095:0] pt [6];
  for (genvar k = 0; k < 6; k++) begin : gen_kwp
    localparam int unsigned N = (Bytes[k] + 7) / 8;
    logic [7:0]      idx;
    logic [64*N-1:0] plain;
    lk_aes256_kwp #(.NumSemiblocks(N), .PlainBytes(Bytes[k])) u_kwp (
      .clk_i,
      .rst_ni,
      .wipe_i,
      .start_i   (kwp_start_i[k]),
      .key_i     (aes_key_i),
      .ct_idx_o  (idx),
      .ct_word_i (ct_mem[idx]),
      .busy_o    (busy[k]),
      .done_o    (done[k]),
      .ok_o      (ok[k]),
      .pt_o      (plain)
    );
    assign pt[k] = 4096'(plain);
  end
  logic unused_busy;
  assign unused_busy = ^busy;

  assign kwp_done_o = done[kwp_sel_i];
  assign kwp_ok_o   = ok[kwp_sel_i];
  assign kwp_pt_o   = pt[kwp_sel_i];
endmodule
