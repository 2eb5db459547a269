// Key block: layouts, labels, FSM codes and tables shared by its modules. Commands, public states,
// reasons and the manifest's layout are in lk_pkg.
//
// Byte order: byte b of a bus is bits [8*b+7:8*b]. 32-bit words of the helper data, the manifest
// and the wrapped key are little-endian words of the byte stream, word w holding bytes 4w..4w+3.
// Not every top uses every code.
// verilator lint_off UNUSEDPARAM
package lk_key_pkg;
  // Sizes.
  localparam int unsigned NumRows       = 64;    // challenges
  localparam int unsigned NumChains     = 96;    // response bits a challenge
  localparam int unsigned ResponseBits  = 2040;  // 8 blocks of BCH(255,131)
  localparam int unsigned BlockBits     = 255;
  localparam int unsigned MessageBits   = 131;
  localparam int unsigned NumBlocks     = 8;

  // Helper data, as word addresses.
  localparam logic [8:0] HelperIdWord     = 9'd2;
  localparam logic [8:0] HelperMarginWord = 9'd6;
  localparam logic [8:0] HelperMaskWord   = 9'd8;
  localparam logic [8:0] HelperOffsetWord = 9'd200;
  localparam logic [8:0] HelperTagWord    = 9'd264;
  localparam logic [8:0] HelperLastWord   = 9'd271;

  localparam logic [31:0] HelperMagic   = 32'h4448_4b4c;  // "LKHD"
  localparam logic [31:0] HelperFormat  = 32'd1;
  localparam logic [31:0] ManifestMagic = 32'h464d_4b4c;  // "LKMF"
  localparam logic [31:0] LockAes128Gcm = 32'd1;

  // Messages of the window MSG_IN: a challenge (8 words, then the slot), and a ticket (12 words,
  // then its MAC); docs/registers.md has their words.
  localparam logic [31:0] AttestMagic     = 32'h5441_4b4c;  // "LKAT"
  localparam logic [31:0] TicketMagic     = 32'h4b54_4b4c;  // "LKTK"
  localparam int unsigned ChallengeWords  = 9;
  localparam int unsigned TicketBodyWords = 12;
  localparam int unsigned TicketWords     = 20;
  localparam int unsigned AttestWords     = 23;
  localparam logic [31:0] NoLimit         = 32'hffff_ffff;

  // Key ladder labels, zero-padded to 16 bytes.
  localparam logic [127:0] LabelHelperMac = 128'h0000_0000_0000_6361_6d2d_7265_706c_6568;
  localparam logic [127:0] LabelOwnerRoot = 128'h0000_0000_0000_746f_6f72_2d72_656e_776f;
  localparam logic [127:0] LabelAttest    = 128'h0000_0000_0000_0000_0000_7473_6574_7461;
  localparam logic [127:0] LabelTicket    = 128'h0000_0000_0000_0000_0000_7465_6b63_6974;
  localparam logic [127:0] LabelOwnerKek  = 128'h0000_0000_0000_006b_656b_2d72_656e_776f;

  // Operations of lk_key_ladder.
  typedef enum logic [3:0] {
    LadderExtract   = 4'd1,  // PRK = HMAC(salt, message)
    LadderMacKey    = 4'd2,  // work key = Expand(PRK, "helper-mac")
    LadderRoot      = 4'd3,  // work key = Expand(PRK, "owner-root", slot)
    LadderKek       = 4'd4,  // digest = Expand(work key, "owner-kek", slot, epoch)
    LadderAttestKey = 4'd5,  // work key = Expand(work key, "attest", slot)
    LadderTicketKey = 4'd6,  // work key = Expand(work key, "ticket", slot)
    LadderMac       = 4'd7,  // digest = HMAC(work key, message)
    LadderHash      = 4'd8   // digest = SHA-256(message)
  } ladder_op_e;

  // FSM codes: ten bits, any two at Hamming distance three or more, none within two of all-zero or
  // all-one. One and two flipped bits therefore reach no other state and fall into the trap.
  // SEC_CM: KEY.FSM.SPARSE
  typedef enum logic [9:0] {
    StIdle           = 10'h007,
    StStarted        = 10'h019,
    StLoaded         = 10'h01e,
    StFailed         = 10'h02a,
    StLocked         = 10'h02d,
    StZeroIdle       = 10'h033,
    StZeroFailed     = 10'h034,
    StZeroLocked     = 10'h04b,
    StHelperScan     = 10'h04c,
    StHelperCheck    = 10'h052,
    StPufStart       = 10'h055,
    StPufWait        = 10'h061,
    StMaskLoad       = 10'h066,
    StOffsetLoad     = 10'h078,
    StScan           = 10'h07f,
    StDecodeWait     = 10'h181,
    StExtract        = 10'h186,
    StScrub          = 10'h198,
    StMacKey         = 10'h19f,
    StMac            = 10'h1ab,
    StTagCompare     = 10'h1ac,
    StStartVerdict   = 10'h1b2,
    StManifestLoad   = 10'h1b5,
    StManifestCheck  = 10'h1ca,
    StKek            = 10'h1cd,
    StUnwrap         = 10'h1d3,
    StUnwrapCompare  = 10'h1d4,
    StUnwrapVerdict  = 10'h1e0,
    StPresent        = 10'h1e7,
    StRoot           = 10'h1f9,
    StNonce          = 10'h282,
    StAttLoad        = 10'h285,
    StAttRoot        = 10'h29b,
    StAttKey         = 10'h29c,
    StAttMac         = 10'h2a8,
    StTktLoad        = 10'h2af,
    StTktCheck       = 10'h2b1,
    StTktRoot        = 10'h2b6,
    StTktKey         = 10'h2c9,
    StTktMac         = 10'h2ce,
    StTktCompare     = 10'h2d0,
    StTktVerdict     = 10'h2d7,
    StTktBurn        = 10'h2e3
  } key_fsm_e;

  // SEC_CM: ENROL.FSM.SPARSE
  typedef enum logic [9:0] {
    EnIdle        = 10'h007,
    EnExport      = 10'h019,
    EnDone        = 10'h01e,
    EnFailed      = 10'h02a,
    EnLocked      = 10'h02d,
    EnZeroIdle    = 10'h033,
    EnZeroFailed  = 10'h034,
    EnZeroLocked  = 10'h04b,
    EnHeader      = 10'h04c,
    EnSelect      = 10'h052,
    EnRow         = 10'h055,
    EnMask        = 10'h061,
    EnScan        = 10'h066,
    EnCode        = 10'h078,
    EnExtract     = 10'h07f,
    EnScrub       = 10'h181,
    EnMacKey      = 10'h186,
    EnMac         = 10'h198,
    EnTag         = 10'h19f,
    EnKek         = 10'h1ab,
    EnBurnBit     = 10'h1ac,
    EnBurnState   = 10'h1b2,
    EnZeroDone    = 10'h1b5,
    EnKeep        = 10'h1ca
  } enrol_fsm_e;

  // SHA-256 (FIPS 180-4): round constants and initial hash value.
  localparam logic [31:0] Sha256K [64] = '{
    32'h428a2f98, 32'h71374491, 32'hb5c0fbcf, 32'he9b5dba5, 32'h3956c25b, 32'h59f111f1,
    32'h923f82a4, 32'hab1c5ed5, 32'hd807aa98, 32'h12835b01, 32'h243185be, 32'h550c7dc3,
    32'h72be5d74, 32'h80deb1fe, 32'h9bdc06a7, 32'hc19bf174, 32'he49b69c1, 32'hefbe4786,
    32'h0fc19dc6, 32'h240ca1cc, 32'h2de92c6f, 32'h4a7484aa, 32'h5cb0a9dc, 32'h76f988da,
    32'h983e5152, 32'ha831c66d, 32'hb00327c8, 32'hbf597fc7, 32'hc6e00bf3, 32'hd5a79147,
    32'h06ca6351, 32'h14292967, 32'h27b70a85, 32'h2e1b2138, 32'h4d2c6dfc, 32'h53380d13,
    32'h650a7354, 32'h766a0abb, 32'h81c2c92e, 32'h92722c85, 32'ha2bfe8a1, 32'ha81a664b,
    32'hc24b8b70, 32'hc76c51a3, 32'hd192e819, 32'hd6990624, 32'hf40e3585, 32'h106aa070,
    32'h19a4c116, 32'h1e376c08, 32'h2748774c, 32'h34b0bcb5, 32'h391c0cb3, 32'h4ed8aa4a,
    32'h5b9cca4f, 32'h682e6ff3, 32'h748f82ee, 32'h78a5636f, 32'h84c87814, 32'h8cc70208,
    32'h90befffa, 32'ha4506ceb, 32'hbef9a3f7, 32'hc67178f2
  };
  localparam logic [31:0] Sha256Init [8] = '{
    32'h6a09e667, 32'hbb67ae85, 32'h3c6ef372, 32'ha54ff53a, 32'h510e527f, 32'h9b05688c,
    32'h1f83d9ab, 32'h5be0cd19
  };

  // AES substitution table and its inverse (FIPS 197).
  localparam logic [7:0] AesSbox [256] = '{
    8'h63, 8'h7c, 8'h77, 8'h7b, 8'hf2, 8'h6b, 8'h6f, 8'hc5, 8'h30, 8'h01, 8'h67, 8'h2b,
    8'hfe, 8'hd7, 8'hab, 8'h76, 8'hca, 8'h82, 8'hc9, 8'h7d, 8'hfa, 8'h59, 8'h47, 8'hf0,
    8'had, 8'hd4, 8'ha2, 8'haf, 8'h9c, 8'ha4, 8'h72, 8'hc0, 8'hb7, 8'hfd, 8'h93, 8'h26,
    8'h36, 8'h3f, 8'hf7, 8'hcc, 8'h34, 8'ha5, 8'he5, 8'hf1, 8'h71, 8'hd8, 8'h31, 8'h15,
    8'h04, 8'hc7, 8'h23, 8'hc3, 8'h18, 8'h96, 8'h05, 8'h9a, 8'h07, 8'h12, 8'h80, 8'he2,
    8'heb, 8'h27, 8'hb2, 8'h75, 8'h09, 8'h83, 8'h2c, 8'h1a, 8'h1b, 8'h6e, 8'h5a, 8'ha0,
    8'h52, 8'h3b, 8'hd6, 8'hb3, 8'h29, 8'he3, 8'h2f, 8'h84, 8'h53, 8'hd1, 8'h00, 8'hed,
    8'h20, 8'hfc, 8'hb1, 8'h5b, 8'h6a, 8'hcb, 8'hbe, 8'h39, 8'h4a, 8'h4c, 8'h58, 8'hcf,
    8'hd0, 8'hef, 8'haa, 8'hfb, 8'h43, 8'h4d, 8'h33, 8'h85, 8'h45, 8'hf9, 8'h02, 8'h7f,
    8'h50, 8'h3c, 8'h9f, 8'ha8, 8'h51, 8'ha3, 8'h40, 8'h8f, 8'h92, 8'h9d, 8'h38, 8'hf5,
    8'hbc, 8'hb6, 8'hda, 8'h21, 8'h10, 8'hff, 8'hf3, 8'hd2, 8'hcd, 8'h0c, 8'h13, 8'hec,
    8'h5f, 8'h97, 8'h44, 8'h17, 8'hc4, 8'ha7, 8'h7e, 8'h3d, 8'h64, 8'h5d, 8'h19, 8'h73,
    8'h60, 8'h81, 8'h4f, 8'hdc, 8'h22, 8'h2a, 8'h90, 8'h88, 8'h46, 8'hee, 8'hb8, 8'h14,
    8'hde, 8'h5e, 8'h0b, 8'hdb, 8'he0, 8'h32, 8'h3a, 8'h0a, 8'h49, 8'h06, 8'h24, 8'h5c,
    8'hc2, 8'hd3, 8'hac, 8'h62, 8'h91, 8'h95, 8'he4, 8'h79, 8'he7, 8'hc8, 8'h37, 8'h6d,
    8'h8d, 8'hd5, 8'h4e, 8'ha9, 8'h6c, 8'h56, 8'hf4, 8'hea, 8'h65, 8'h7a, 8'hae, 8'h08,
    8'hba, 8'h78, 8'h25, 8'h2e, 8'h1c, 8'ha6, 8'hb4, 8'hc6, 8'he8, 8'hdd, 8'h74, 8'h1f,
    8'h4b, 8'hbd, 8'h8b, 8'h8a, 8'h70, 8'h3e, 8'hb5, 8'h66, 8'h48, 8'h03, 8'hf6, 8'h0e,
    8'h61, 8'h35, 8'h57, 8'hb9, 8'h86, 8'hc1, 8'h1d, 8'h9e, 8'he1, 8'hf8, 8'h98, 8'h11,
    8'h69, 8'hd9, 8'h8e, 8'h94, 8'h9b, 8'h1e, 8'h87, 8'he9, 8'hce, 8'h55, 8'h28, 8'hdf,
    8'h8c, 8'ha1, 8'h89, 8'h0d, 8'hbf, 8'he6, 8'h42, 8'h68, 8'h41, 8'h99, 8'h2d, 8'h0f,
    8'hb0, 8'h54, 8'hbb, 8'h16
  };
  localparam logic [7:0] AesInvSbox [256] = '{
    8'h52, 8'h09, 8'h6a, 8'hd5, 8'h30, 8'h36, 8'ha5, 8'h38, 8'hbf, 8'h40, 8'ha3, 8'h9e,
    8'h81, 8'hf3, 8'hd7, 8'hfb, 8'h7c, 8'he3, 8'h39, 8'h82, 8'h9b, 8'h2f, 8'hff, 8'h87,
    8'h34, 8'h8e, 8'h43, 8'h44, 8'hc4, 8'hde, 8'he9, 8'hcb, 8'h54, 8'h7b, 8'h94, 8'h32,
    8'ha6, 8'hc2, 8'h23, 8'h3d, 8'hee, 8'h4c, 8'h95, 8'h0b, 8'h42, 8'hfa, 8'hc3, 8'h4e,
    8'h08, 8'h2e, 8'ha1, 8'h66, 8'h28, 8'hd9, 8'h24, 8'hb2, 8'h76, 8'h5b, 8'ha2, 8'h49,
    8'h6d, 8'h8b, 8'hd1, 8'h25, 8'h72, 8'hf8, 8'hf6, 8'h64, 8'h86, 8'h68, 8'h98, 8'h16,
    8'hd4, 8'ha4, 8'h5c, 8'hcc, 8'h5d, 8'h65, 8'hb6, 8'h92, 8'h6c, 8'h70, 8'h48, 8'h50,
    8'hfd, 8'hed, 8'hb9, 8'hda, 8'h5e, 8'h15, 8'h46, 8'h57, 8'ha7, 8'h8d, 8'h9d, 8'h84,
    8'h90, 8'hd8, 8'hab, 8'h00, 8'h8c, 8'hbc, 8'hd3, 8'h0a, 8'hf7, 8'he4, 8'h58, 8'h05,
    8'hb8, 8'hb3, 8'h45, 8'h06, 8'hd0, 8'h2c, 8'h1e, 8'h8f, 8'hca, 8'h3f, 8'h0f, 8'h02,
    8'hc1, 8'haf, 8'hbd, 8'h03, 8'h01, 8'h13, 8'h8a, 8'h6b, 8'h3a, 8'h91, 8'h11, 8'h41,
    8'h4f, 8'h67, 8'hdc, 8'hea, 8'h97, 8'hf2, 8'hcf, 8'hce, 8'hf0, 8'hb4, 8'he6, 8'h73,
    8'h96, 8'hac, 8'h74, 8'h22, 8'he7, 8'had, 8'h35, 8'h85, 8'he2, 8'hf9, 8'h37, 8'he8,
    8'h1c, 8'h75, 8'hdf, 8'h6e, 8'h47, 8'hf1, 8'h1a, 8'h71, 8'h1d, 8'h29, 8'hc5, 8'h89,
    8'h6f, 8'hb7, 8'h62, 8'h0e, 8'haa, 8'h18, 8'hbe, 8'h1b, 8'hfc, 8'h56, 8'h3e, 8'h4b,
    8'hc6, 8'hd2, 8'h79, 8'h20, 8'h9a, 8'hdb, 8'hc0, 8'hfe, 8'h78, 8'hcd, 8'h5a, 8'hf4,
    8'h1f, 8'hdd, 8'ha8, 8'h33, 8'h88, 8'h07, 8'hc7, 8'h31, 8'hb1, 8'h12, 8'h10, 8'h59,
    8'h27, 8'h80, 8'hec, 8'h5f, 8'h60, 8'h51, 8'h7f, 8'ha9, 8'h19, 8'hb5, 8'h4a, 8'h0d,
    8'h2d, 8'he5, 8'h7a, 8'h9f, 8'h93, 8'hc9, 8'h9c, 8'hef, 8'ha0, 8'he0, 8'h3b, 8'h4d,
    8'hae, 8'h2a, 8'hf5, 8'hb0, 8'hc8, 8'heb, 8'hbb, 8'h3c, 8'h83, 8'h53, 8'h99, 8'h61,
    8'h17, 8'h2b, 8'h04, 8'h7e, 8'hba, 8'h77, 8'hd6, 8'h26, 8'he1, 8'h69, 8'h14, 8'h63,
    8'h55, 8'h21, 8'h0c, 8'h7d
  };

  function automatic logic [7:0] aes_sbox(input logic [7:0] x);
    return AesSbox[x];
  endfunction

  function automatic logic [7:0] aes_inv_sbox(input logic [7:0] x);
    return AesInvSbox[x];
  endfunction
endpackage
// verilator lint_on UNUSEDPARAM
