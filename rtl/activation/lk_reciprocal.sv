// Reciprocal of v, or of its square root, one a cycle: host/model/arith.hpp, `reciprocal` and
// `normalised`.
//
//   root_i 0: m = the leading 18 bits of v,      q = floor((2^34 - 1) / m), length = bits of v
//   root_i 1: m = floor(sqrt(leading 36 bits)),  the same, length = bits of v rounded up to even
//
// v is not zero and below 2^40 (root_i 0: below 2^36). Bit by bit, a stage per bit: 18 of the root,
// 17 of the quotient, two to line v up. wipe_i zeroes all stages and must stay for 40 cycles.
module lk_reciprocal #(
  parameter int unsigned TagW = 6
) (
  input  logic            clk_i,
  input  logic            rst_ni,
  input  logic            clear_i,
  input  logic            wipe_i,
  input  logic            valid_i,
  input  logic            root_i,
  input  logic [39:0]     v_i,
  input  logic [TagW-1:0] tag_i,
  output logic            valid_o,
  output logic [16:0]     q_o,
  output logic [5:0]      length_o,
  output logic [TagW-1:0] tag_o
);
  localparam int unsigned RootBits = 18;
  localparam int unsigned QBits    = 17;
  localparam int unsigned Stages   = 2 + RootBits + QBits;

  logic [Stages:1] valid_q;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) valid_q <= '0;
    else if (clear_i || wipe_i) valid_q <= '0;
    else valid_q <= {valid_q[Stages-1:1], valid_i};
  end

  // Through all stages: length, tag and what is asked for.
  typedef struct packed {
    logic            root;
    logic [5:0]      length;
    logic [TagW-1:0] tag;
  } side_t;

  // ---- Length, then the leading bits ----
  logic [39:0] v1_q;
  side_t       side_q [1:Stages];
  logic [5:0]  length;
  logic [35:0] aligned;

  always_comb begin
    length = '0;
    for (int unsigned i = 0; i < 40; i++) if (v_i[i]) length = 6'(i + 1);
    if (root_i && length[0]) length = length + 6'd1;
  end

  always_comb begin
    logic [5:0]  over;
    logic [75:0] wide;
    over    = side_q[1].length - 6'd36;
    wide    = {v1_q, 36'd0} >> side_q[1].length;
    aligned = wide[35:0];
    // A length of 37 to 40 leaves up to four bits above.
    if (side_q[1].length > 6'd36) aligned = 36'(v1_q >> over[2:0]);
  end

  // ---- Root: rest and root so far; m holds the bits to come ----
  logic [35:0] m_q    [2:2+RootBits];
  logic [19:0] rest_q [2:2+RootBits];
  logic [17:0] root_q [2:2+RootBits];

  // ---- Quotient: the rest is below the divisor ----
  logic [17:0] den_q  [2+RootBits:Stages];
  logic [17:0] left_q [2+RootBits:Stages];
  logic [16:0] quot_q [2+RootBits:Stages];

  assign den_q[2+RootBits]  = side_q[2+RootBits].root ? root_q[2+RootBits] : m_q[2+RootBits][35:18];
  assign left_q[2+RootBits] = 18'h1ffff;
  assign quot_q[2+RootBits] = '0;

  logic [Stages:0] go;  // stage i takes a value
  assign go = {valid_q, valid_i} | {(Stages + 1){wipe_i}};

  always_ff @(posedge clk_i) begin
    if (go[0]) begin
      v1_q      <= wipe_i ? '0 : v_i;
      side_q[1] <= '{root: root_i, length: length, tag: tag_i};
    end
    if (go[1]) begin
      m_q[2]    <= aligned;
      rest_q[2] <= '0;
      root_q[2] <= '0;
    end
    for (int unsigned i = 2; i <= Stages; i++) if (go[i-1]) side_q[i] <= side_q[i-1];
    for (int unsigned i = 2; i < 2 + RootBits; i++) begin
      if (go[i]) begin
        automatic logic [19:0] rest = {rest_q[i][17:0], m_q[i][35:34]};
        automatic logic [19:0] trial = {root_q[i], 2'b01};
        rest_q[i+1] <= rest >= trial ? rest - trial : rest;
        root_q[i+1] <= {root_q[i][16:0], rest >= trial};
        m_q[i+1]    <= side_q[i].root ? {m_q[i][33:0], 2'b00} : m_q[i];
      end
    end
    for (int unsigned i = 2 + RootBits; i < Stages; i++) begin
      if (go[i]) begin
        automatic logic [18:0] rest = {left_q[i], 1'b1};
        automatic logic        fits = rest >= {1'b0, den_q[i]};
        left_q[i+1] <= fits ? 18'(rest - {1'b0, den_q[i]}) : rest[17:0];
        quot_q[i+1] <= {quot_q[i][15:0], fits};
        den_q[i+1]  <= den_q[i];
      end
    end
  end

  assign valid_o  = valid_q[Stages];
  assign q_o      = quot_q[Stages];
  assign length_o = side_q[Stages].length;
  assign tag_o    = side_q[Stages].tag;
endmodule
