// Key ladder: HKDF-SHA256 (RFC 5869) with the labels of this design, over one SHA-256 core.
//
//   LadderExtract  PRK     = HMAC(key = salt_i, message)      salt = device id | format, 20 bytes
//   LadderMacKey     work   = Expand(PRK,  "helper-mac", 0, 0)
//   LadderRoot       work   = Expand(PRK,  "owner-root", slot_i, 0)        root of an owner slot
//   LadderKek        digest = Expand(work, "owner-kek",  slot_i, epoch_i)  after LadderRoot
//   LadderAttestKey  work   = Expand(work, "attest",     slot_i, 0)        after LadderRoot
//   LadderTicketKey  work   = Expand(work, "ticket",     slot_i, 0)        after LadderRoot
//   LadderMac        digest = HMAC(key = work, message)
//   LadderHash       digest = SHA-256(message)
//
// Expand(key, label, slot, epoch) = HMAC(key, info | 0x01), the first block of HKDF-Expand. What an
// owner holds is the root of a slot: everything below it follows from it, the roots of other slots
// do not.
//
// info is 32 bytes: label zero-padded to 16 | slot | 0 0 0 | epoch (little-endian) | 8 zero bytes.
// `start_i` takes `op_i`; a message, where there is one, goes in as in `lk_sha256`; `done_o`
// pulses. `digest_o` is valid with LadderKek, LadderMac and LadderHash from `done_o` to the next
// start; PRK and work key never leave this module, and `digest_o` stays zero for the operations
// that make them. ExportRoot, for the enrol build alone, shows the root of a slot there as well.
module lk_key_ladder #(
  parameter bit ExportRoot = 1'b0
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         wipe_i,      // forget everything
  input  logic         wipe_work_i, // forget everything but the PRK
  input  logic         start_i,
  input  logic [3:0]   op_i,        // lk_key_pkg::ladder_op_e
  input  logic [159:0] salt_i,
  input  logic [7:0]   slot_i,
  input  logic [31:0]  epoch_i,
  input  logic         in_valid_i,
  output logic         in_ready_o,
  input  logic [31:0]  in_data_i,
  input  logic [2:0]   in_bytes_i,
  input  logic         in_last_i,
  output logic         done_o,
  output logic [255:0] digest_o
);
  import lk_key_pkg::*;

  logic [3:0]   op_q;
  logic         active_q, done_q;
  logic [255:0] prk_q, work_q, hm_digest;
  logic [3:0]   info_q;   // word of the info string
  logic         hm_ready, hm_done, hm_busy, internal;
  logic         hm_valid, hm_last;
  logic [2:0]   hm_bytes, key_idx;
  logic [31:0]  hm_data, key_word, info_word;

  assign internal = op_q != LadderExtract && op_q != LadderMac && op_q != LadderHash;

  always_comb begin
    key_word = '0;
    if (active_q) begin
      unique case (op_q)
        LadderExtract:            if (key_idx < 3'd5) key_word = salt_i[32*key_idx +: 32];
        LadderMacKey, LadderRoot: key_word = prk_q[32*key_idx +: 32];
        // SEC_CM: KEY.LADDER.SLOT
        LadderKek, LadderAttestKey, LadderTicketKey, LadderMac:
          key_word = work_q[32*key_idx +: 32];
        default: ;
      endcase
    end
  end

  logic [127:0] label;
  always_comb begin
    unique case (op_q)
      LadderMacKey:    label = LabelHelperMac;
      LadderRoot:      label = LabelOwnerRoot;
      LadderAttestKey: label = LabelAttest;
      LadderTicketKey: label = LabelTicket;
      default:         label = LabelOwnerKek;
    endcase
    info_word = '0;
    unique case (info_q)
      4'd0, 4'd1, 4'd2, 4'd3: info_word = label[32*info_q[1:0] +: 32];
      4'd4: info_word = (op_q == LadderMacKey) ? '0 : {24'd0, slot_i};
      4'd5: info_word = (op_q == LadderKek) ? epoch_i : '0;
      4'd8: info_word = 32'h0000_0001;
      default: ;
    endcase
  end

  assign hm_valid   = active_q && (internal ? info_q <= 4'd8 : in_valid_i);
  assign hm_data    = internal ? info_word : in_data_i;
  assign hm_bytes   = internal ? (info_q == 4'd8 ? 3'd1 : 3'd4) : in_bytes_i;
  assign hm_last    = internal ? info_q == 4'd8 : in_last_i;
  assign in_ready_o = active_q && !internal && hm_ready;

  lk_hmac_sha256 u_hmac (
    .clk_i,
    .rst_ni,
    .wipe_i     (wipe_i || wipe_work_i),
    .start_i    (start_i),
    .hmac_i     (op_i != LadderHash),
    .key_idx_o  (key_idx),
    .key_word_i (key_word),
    .in_valid_i (hm_valid),
    .in_ready_o (hm_ready),
    .in_data_i  (hm_data),
    .in_bytes_i (hm_bytes),
    .in_last_i  (hm_last),
    .busy_o     (hm_busy),
    .done_o     (hm_done),
    .digest_o   (hm_digest)
  );
  logic unused_busy;
  assign unused_busy = hm_busy;

  assign done_o   = done_q;
  assign digest_o = (!active_q && (op_q == LadderKek || op_q == LadderMac || op_q == LadderHash ||
                                   (ExportRoot && op_q == LadderRoot))) ? hm_digest : '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      op_q      <= '0;
      active_q  <= 1'b0;
      done_q    <= 1'b0;
      prk_q     <= '0;
      work_q    <= '0;
      info_q    <= '0;
    end else begin
      done_q <= 1'b0;
      if (wipe_i || wipe_work_i) begin  // SEC_CM: KEY.LADDER.WIPE
        op_q      <= '0;
        active_q  <= 1'b0;
        work_q    <= '0;
        if (wipe_i) prk_q <= '0;
      end else if (start_i) begin
        op_q     <= op_i;
        active_q <= 1'b1;
        info_q   <= '0;
      end else if (active_q) begin
        if (internal && hm_valid && hm_ready) info_q <= info_q + 4'd1;
        if (hm_done) begin
          active_q <= 1'b0;
          done_q   <= 1'b1;
          if (op_q == LadderExtract) prk_q <= hm_digest;
          if (op_q == LadderMacKey || op_q == LadderRoot || op_q == LadderAttestKey ||
              op_q == LadderTicketKey) work_q <= hm_digest;
        end
      end
    end
  end
endmodule
